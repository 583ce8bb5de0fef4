"""When things happen in a run: collects, evaluations, snapshots, dumped minibatches. Everything follows from the
configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toppo.common.errors import UsageError
from toppo.training.config import TrainConfig
from toppo.training.envs.sizes import HORIZON


@dataclass(frozen=True)
class Schedule:
    """The plan of a run. Collects are numbered from 1; collect 0 is the untrained network."""

    config: TrainConfig
    episodes_per_env: int
    """Whole episodes each environment runs a collect."""
    collects: int

    @property
    def steps_per_task(self) -> int:
        """Environment steps of one task a collect (N of the update's dense (K, N, ...) block)."""
        return self.config.env_steps_per_collect // self.config.n_tasks

    @property
    def updates(self) -> int:
        """Minibatch updates a collect."""
        return self.config.repeats * self.config.minibatches

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Collects after which the policy is evaluated: at the start, every `eval_every_epochs` epochs, and at the
        end (B.1).
        """
        every = self.config.eval_every_epochs * self.config.env_steps_per_epoch // self.config.env_steps_per_collect
        return (*range(0, self.collects, every), self.collects)

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Collects whose update phase is dumped."""
        every = self.config.dump_every
        return tuple(range(every, self.collects + 1, every)) if every else ()

    @property
    def dumped_minibatches(self) -> tuple[int, ...]:
        """Updates of a dumped collect that go into the snapshot, evenly spread from the first to the last."""
        return tuple(int(i) for i in np.linspace(0, self.updates - 1, self.config.dump_minibatches).round())

    @property
    def streamed_minibatches(self) -> tuple[int, ...]:
        """Updates of every collect whose Grams go into the Gram stream."""
        return tuple(range(0, self.updates, self.config.gram_every))


def plan(config: TrainConfig) -> Schedule:
    """The schedule of a configuration.

    Raises:
        UsageError: budgets that do not fit together, with the nearest that do.
    """
    per_episode = config.n_tasks * config.envs_per_task * HORIZON
    _multiple(
        "--env-steps-per-collect",
        config.env_steps_per_collect,
        per_episode,
        "tasks x envs-per-task x 500 steps (whole episodes)",
    )
    _multiple(
        "--env-steps-per-epoch", config.env_steps_per_epoch, config.env_steps_per_collect, "--env-steps-per-collect"
    )
    _multiple("--env-steps", config.env_steps, config.env_steps_per_collect, "--env-steps-per-collect")
    schedule = Schedule(
        config,
        episodes_per_env=config.env_steps_per_collect // per_episode,
        collects=config.env_steps // config.env_steps_per_collect,
    )
    if config.minibatches > schedule.steps_per_task // 2:
        raise UsageError(
            f"--minibatches {config.minibatches}: leaves under 2 of a task's {schedule.steps_per_task} samples a "
            f"minibatch; give at most {schedule.steps_per_task // 2}"
        )
    if config.dump_every and config.dump_every > schedule.collects:
        raise UsageError(
            f"--dump-every {config.dump_every}: the run has only {schedule.collects} collects, "
            "so nothing would be dumped"
        )
    return schedule


def _multiple(flag: str, value: int, unit: int, meaning: str) -> None:
    if value % unit:
        nearest = max(1, round(value / unit)) * unit
        raise UsageError(f"{flag} {value:,}: must be a multiple of {unit:,} = {meaning}; nearest: {nearest}")

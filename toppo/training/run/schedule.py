"""When things happen in a run: collects, evaluations, snapshots, dumped minibatches. All follow from the configuration.

A collect is one rollout phase with the updates after it. A snapshot is what the dump records of one collect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from toppo.common.errors import bad_option
from toppo.training.config import TrainConfig
from toppo.training.envs.sizes import HORIZON


@dataclass(frozen=True)
class Collects(Sequence[int]):
    """Every so many collects, and the last one. Nothing is listed, so that a plan of 10^15 steps is made at once."""

    regular: range
    last: int
    """Also among them, where `regular` does not end with it."""

    def __len__(self) -> int:
        return len(self.regular) + (self.last not in self.regular)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...

    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = index + len(self) if index < 0 else index
        return self.last if index == len(self.regular) < len(self) else self.regular[index]

    def __contains__(self, collect: object) -> bool:
        return collect == self.last or collect in self.regular


@dataclass(frozen=True)
class Schedule:
    """The plan of a run. `plan` makes it. Collects are numbered from 1. Collect 0 is the untrained network."""

    config: TrainConfig
    episodes_per_env: int
    """Whole episodes that each environment plays per collect."""
    collects: int
    """Number of collects in the run."""

    @property
    def steps_per_task(self) -> int:
        """Environment steps of one task per collect. This is N of the update's dense (K, N, ...) batch."""
        return self.config.env_steps_per_collect // self.config.n_tasks

    @property
    def updates(self) -> int:
        """Minibatch updates per collect."""
        return self.config.repeats * self.config.minibatches

    @property
    def evaluations(self) -> Collects:
        """Collects after which the policy is evaluated (Section B.1).

        There is an evaluation at the start, every `eval_every_epochs` epochs, and at the end.
        """
        every = self.config.eval_every_epochs * self.config.env_steps_per_epoch // self.config.env_steps_per_collect
        return Collects(range(0, self.collects, every), self.collects)

    @property
    def snapshots(self) -> range:
        """Collects whose updates are dumped."""
        every = self.config.dump_every
        return range(every, self.collects + 1, every) if every else range(0)

    def snapshots_until(self, collect: int) -> int:
        """Number of snapshots up to and with a collect."""
        return min(collect, self.collects) // self.config.dump_every if self.config.dump_every else 0

    @property
    def dumped_minibatches(self) -> tuple[int, ...]:
        """Updates that the snapshot of a dumped collect records, spread evenly from the first to the last update."""
        return tuple(int(i) for i in np.linspace(0, self.updates - 1, self.config.dump_minibatches).round())

    @property
    def streamed_minibatches(self) -> range:
        """Updates of every collect whose Grams go to the Gram stream."""
        return range(0, self.updates, self.config.gram_every)


def plan(config: TrainConfig) -> Schedule:
    """The schedule of a configuration.

    Raises:
        UsageError: the numbers of steps do not fit together. The message gives the nearest number that fits.
    """
    episodes = config.n_tasks * config.envs_per_task * HORIZON
    whole = f"whole episodes: {config.n_tasks} tasks x {config.envs_per_task} `envs_per_task` x {HORIZON} steps"
    _require_multiple("env_steps_per_collect", config.env_steps_per_collect, episodes, whole)
    collect = config.env_steps_per_collect
    _require_multiple("env_steps_per_epoch", config.env_steps_per_epoch, collect, "`env_steps_per_collect`")
    _require_multiple("env_steps", config.env_steps, collect, "`env_steps_per_collect`")
    schedule = Schedule(config, episodes_per_env=collect // episodes, collects=config.env_steps // collect)
    samples = schedule.steps_per_task
    if config.minibatches > samples // 2:
        problem = f"each task has {samples} samples per collect, and a minibatch needs 2; give at most {samples // 2}"
        raise bad_option("minibatches", config.minibatches, problem)
    if config.dump_every and config.dump_every > schedule.collects:
        problem = f"the run has only {schedule.collects} collects, so nothing would be dumped; give a smaller number"
        raise bad_option("dump_every", config.dump_every, problem)
    return schedule


def _require_multiple(option: str, value: int, unit: int, meaning: str) -> None:
    if value % unit:
        nearest = max(1, round(value / unit)) * unit
        raise bad_option(option, value, f"must be a multiple of {unit:,} ({meaning}); nearest: {nearest}")

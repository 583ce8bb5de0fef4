"""What a run would do and cost. The costs are measured on this machine for a few seconds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from toppo.training.envs.costs import step_cost
from toppo.training.envs.interface import Rollout
from toppo.training.envs.metaworld import seconds_per_cost
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.gaussian import log_prob_of_noise
from toppo.training.learner.update import Learner
from toppo.training.run.progress import rough
from toppo.training.run.schedule import Schedule

MEASURED_SAMPLES = 200_000
"""Samples of the largest minibatch that is measured whole; the paper's have 3,125 and 15,625."""
UNSURE = 0.3
"""How far the environments' measured time may be off: tasks cost more or less under a trained policy."""


@dataclass(frozen=True)
class Estimate:
    """The plan of a run, and its cost. `print` lists both."""

    schedule: Schedule
    tasks: tuple[str, ...]
    parameters: int
    """Parameters of the networks, counted as in Section B.3."""
    disk_bytes: int
    """Size of the dump at the end."""
    environment_seconds: float
    """Seconds per collect (rollout phase with its updates) in environments and policy."""
    update_seconds: float
    """Seconds per collect in updates."""
    update_range: tuple[float, float]
    """The same by the fastest and by the slowest of the measured minibatches."""
    evaluation_seconds: float
    """Seconds per evaluation whose episodes are all played to their end. Those that succeed end earlier."""

    @property
    def hours(self) -> float:
        """Hours for the whole run, without evaluations."""
        return (self.environment_seconds + self.update_seconds) * self.schedule.collects / 3600

    @property
    def hours_between(self) -> tuple[float, float]:
        """Least and most hours for the whole run, with evaluations.

        The least has the fastest update that was measured, environments `UNSURE` faster, and no evaluations. The most
        has the slowest update, environments slower by as much, and whole evaluations.
        """
        least = self.environment_seconds / (1 + UNSURE) + self.update_range[0]
        most = self.environment_seconds * (1 + UNSURE) + self.update_range[1]
        evaluations = len(self.schedule.evaluations) * self.evaluation_seconds * (1 + UNSURE)
        return least * self.schedule.collects / 3600, (most * self.schedule.collects + evaluations) / 3600

    @property
    def _between(self) -> tuple[str, str]:
        least, most = self.hours_between
        return rough(3600 * least), rough(3600 * most)

    def announcement(self) -> str:
        """What `train` says before it starts: time, disk, and the options of a short first run."""
        config, (least, most) = self.schedule.config, self._between
        per_episode = config.n_tasks * HORIZON
        collect = per_episode * max(2, -(-2 * config.minibatches // HORIZON))
        steps = collect * max(4, config.dump_every or 0)
        short = {"env_steps": steps, "env_steps_per_epoch": collect, "env_steps_per_collect": collect}
        options = " ".join(f"`{key}={value}`" for key, value in {**short, "eval_episodes": 2}.items())
        return (
            f"{self.schedule.collects:,} collects take about {least} to {most} on this machine, and "
            f"{self.disk_bytes / 1e9:.2f} GB of disk. For a short first run give {options}"
        )

    def __str__(self) -> str:
        schedule, config = self.schedule, self.schedule.config
        per_minibatch = config.env_steps_per_collect // config.minibatches
        lines = {
            "tasks": f"{config.n_tasks}: {', '.join(self.tasks)}",
            "parameters": f"{self.parameters:,}",
            "collects": f"{schedule.collects:,} of {config.env_steps_per_collect:,} steps",
            "updates": f"{schedule.updates} per collect, minibatches of {per_minibatch:,} samples",
            "evaluations": f"{len(schedule.evaluations)}, {config.eval_episodes} episodes per task each",
            "snapshots": f"{len(schedule.snapshots)}, {config.dump_minibatches} minibatches each"
            if schedule.snapshots
            else "none (only the Gram stream)",
            "disk": f"about {self.disk_bytes / 1e9:.2f} GB",
            "time": f"about {rough(3600 * self.hours)} ({self.environment_seconds:.0f} s environment and "
            f"{self.update_seconds:.0f} s update per collect), without evaluations",
            "range": "{} to {}, with evaluations".format(*self._between),
        }
        return "\n".join([config.to_toml(), *(f"{name:<12} {value}" for name, value in lines.items())])


def measure(schedule: Schedule, learner: Learner, disk_bytes: int) -> Estimate:
    """The estimate for a run, from a few minibatch updates of the real size and a few hundred environment steps.

    Args:
        schedule: plan of the run.
        learner: a freshly initialised learner. The measured updates change it.
        disk_bytes: size of the dump at the end.
    """
    config = schedule.config
    mean_cost = float(np.mean([step_cost(task) for task in learner.tasks]))
    per_step = mean_cost * seconds_per_cost(config.reward) / min(config.workers, os.cpu_count() or 1)
    per_minibatch = np.array(_seconds_per_minibatch(schedule, learner))
    return Estimate(
        schedule,
        learner.tasks,
        learner.n_parameters,
        disk_bytes,
        environment_seconds=config.env_steps_per_collect * per_step,
        update_seconds=schedule.updates * float(np.median(per_minibatch)),
        update_range=(schedule.updates * float(per_minibatch.min()), schedule.updates * float(per_minibatch.max())),
        evaluation_seconds=config.n_tasks * config.eval_episodes * HORIZON * per_step,
    )


def _seconds_per_minibatch(schedule: Schedule, learner: Learner) -> list[float]:
    """Time of each of some updates, without the first. A minibatch above `MEASURED_SAMPLES` is measured in part."""
    k, whole = len(learner.tasks), schedule.steps_per_task // schedule.config.minibatches
    n = min(whole, max(2, MEASURED_SAMPLES // k))
    episodes = -(-n // HORIZON)
    generator = np.random.default_rng(0)
    batch = learner.prepare(made_up_rollout((k, episodes, HORIZON), OBS_DIM, ACTION_DIM, generator))
    targets = learner.targets(batch)
    samples = torch.arange(n).expand(k, n)
    seconds = []
    for i in range(6):
        start = time.perf_counter()
        learner.step(batch, targets, samples, i, generator)
        if learner.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return [duration * whole / n for duration in seconds[1:]]


def made_up_rollout(shape: tuple[int, int, int], obs_dim: int, action_dim: int, rng: np.random.Generator) -> Rollout:
    """A rollout of noise: observations, the actions of a fresh actor, and rewards whose scale differs per task.

    Args:
        shape: (K, E, T).
        obs_dim: numbers in an observation.
        action_dim: numbers in an action.
        rng: draws the noise.
    """
    k, e, t = shape
    actions = rng.standard_normal((*shape, action_dim), dtype=np.float32)
    log_prob = log_prob_of_noise(torch.from_numpy(actions).flatten(1, 2), torch.zeros(k, action_dim))
    return Rollout(
        obs=rng.standard_normal((k, e, t + 1, obs_dim), dtype=np.float32),
        actions=actions,
        log_prob=log_prob.view(shape).numpy(),
        rewards=10 * rng.random(shape) * np.logspace(-1, 0, k)[:, None, None],
        success=np.zeros((k, e), dtype=bool),
    )

"""What a run would cost, measured on this machine before it starts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from toppo.training.envs.costs import STEP_MICROSECONDS, step_cost
from toppo.training.envs.interface import Rollout
from toppo.training.envs.metaworld import ACTION_DIM, HORIZON, OBS_DIM, Episode, not_compared, task_specs
from toppo.training.gaussian import log_prob_of_noise
from toppo.training.learner.update import Learner
from toppo.training.run.schedule import Schedule

_REFERENCE = "drawer-close-v3"


@dataclass(frozen=True)
class Estimate:
    """Seconds of one collect, from a few seconds of measurement."""

    environment: float
    update: float


def measure(schedule: Schedule, learner: Learner) -> Estimate:
    """Time a few minibatch updates of the real size and a few hundred environment steps of one task, and scale up."""
    config = schedule.config
    seconds_per_cost = _seconds_per_step(config.reward) / STEP_MICROSECONDS[_REFERENCE]
    mean_cost = float(np.mean([step_cost(task) for task in learner.tasks]))
    environment = config.env_steps_per_collect * mean_cost * seconds_per_cost / min(config.workers, os.cpu_count() or 1)
    return Estimate(environment, schedule.updates * _seconds_per_minibatch(schedule, learner))


def _seconds_per_step(reward: str) -> float:
    (spec,) = task_specs(_REFERENCE, seed=0)
    env = Episode(spec, reward, seed=0, accelerated=not not_compared())
    action = np.zeros(ACTION_DIM, np.float32)
    start = time.process_time()
    env.reset(0)
    reset = time.process_time() - start
    steps = 300
    start = time.process_time()
    for _ in range(steps):
        env.step(action)
    return (time.process_time() - start) / steps + reset / HORIZON


def _seconds_per_minibatch(schedule: Schedule, learner: Learner) -> float:
    k, n = len(learner.tasks), schedule.steps_per_task // schedule.config.minibatches
    episodes = -(-n // HORIZON)
    generator = np.random.default_rng(0)
    batch = learner.prepare(made_up_rollout((k, episodes, HORIZON), OBS_DIM, ACTION_DIM, generator))
    targets = learner.targets(batch)
    samples = torch.arange(n).expand(k, n)
    seconds = []
    for i in range(5):
        start = time.perf_counter()
        learner.step(batch, targets, samples, i, generator)
        if learner.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def made_up_rollout(shape: tuple[int, int, int], obs_dim: int, action_dim: int, rng: np.random.Generator) -> Rollout:
    """Noise in the place of observations and of a fresh actor's actions, and rewards of a scale of each task's own, in
    0..10.

    Args:
        shape: (K, E, T).
        obs_dim, action_dim: sizes of an observation and of an action.
        rng: what it is drawn from.
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


def describe_plan(schedule: Schedule, learner: Learner, disk: int, console: Console) -> None:
    """Print the resolved configuration, the schedule, the disk and the time a run needs. The learner is used up."""
    config = schedule.config
    console.print(config.to_toml(), highlight=False, markup=False)
    per_minibatch = config.env_steps_per_collect // config.minibatches
    estimate = measure(schedule, learner)
    collect = estimate.environment + estimate.update
    lines = {
        "tasks": f"{config.n_tasks}: {', '.join(learner.tasks)}",
        "parameters": f"{learner.n_parameters:,}",
        "collects": f"{schedule.collects:,} of {config.env_steps_per_collect:,} steps",
        "updates": f"{schedule.updates} a collect, minibatches of {per_minibatch:,} samples",
        "evaluations": f"{len(schedule.evaluations)}, {config.eval_episodes} episodes a task each",
        "snapshots": f"{len(schedule.snapshots)}, {config.dump_minibatches} minibatches each"
        if schedule.snapshots
        else "none (Gram stream only)",
        "disk": f"about {disk / 1e9:.2f} GB",
        "time": f"about {collect * schedule.collects / 3600:.1f} h ({estimate.environment:.0f} s environment and "
        f"{estimate.update:.0f} s update a collect), evaluations not counted",
    }
    for name, value in lines.items():
        console.print(f"{name:<12} {value}", highlight=False, markup=False, soft_wrap=True)

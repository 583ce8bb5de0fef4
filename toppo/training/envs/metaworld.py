"""Meta-World through its own package: task names, goals, and freshly built environments.

This module avoids two traps:

- `make_mt_envs` gives every environment the same seed, so all tasks and copies draw the same goal indices. Here each
  copy has a seed of its own.
- A Meta-World reset depends on the previous episode, because the hand settles while the fixtures are still where that
  episode left them. Here environments are built anew for every rollout and every evaluation. So both depend on the seed
  alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import metaworld
import numpy as np
from jaxtyping import Float
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3, MT25_V3, MT50_V3
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from toppo.common.errors import bad_option, unknown
from toppo.training.envs.costs import STEP_MICROSECONDS
from toppo.training.envs.sizes import ACTION_DIM, HORIZON

_BENCHMARKS = {"MT10": MT10_V3, "MT25": MT25_V3, "MT50": MT50_V3}


def task_names(benchmark: str) -> tuple[str, ...]:
    """The tasks of MT10, MT25 or MT50 in Meta-World's own order, or the tasks of a list separated by commas.

    Raises:
        UsageError: a name is unknown. The message suggests the closest one.
    """
    if benchmark in _BENCHMARKS:
        return tuple(_BENCHMARKS[benchmark])
    names = tuple(benchmark.split(","))
    for name in names:
        if name in _BENCHMARKS:
            raise bad_option(
                "benchmark", benchmark, f"{name} is a whole benchmark; give {name} alone, or names of tasks"
            )
        if name not in ALL_V3_ENVIRONMENTS:
            kind = "task" if len(names) > 1 else "benchmark or task"
            raise unknown(kind, name, [*_BENCHMARKS, *ALL_V3_ENVIRONMENTS])
    return names


@dataclass(frozen=True)
class TaskSpec:
    """One task as a worker needs it: its index, its name, and its goals as Meta-World's own `Task` objects."""

    index: int
    name: str
    goals: tuple[Any, ...]


def task_specs(benchmark: str, seed: int) -> tuple[TaskSpec, ...]:
    """The tasks of a benchmark with the goals that Meta-World draws for this seed.

    A list of tasks separated by commas has the goals of `MT1(name, seed)`.
    """
    names = task_names(benchmark)
    if benchmark in _BENCHMARKS:
        drawn = getattr(metaworld, benchmark)(seed=seed).train_tasks
    else:
        drawn = [task for name in names for task in metaworld.MT1(name, seed=seed).train_tasks]
    return tuple(TaskSpec(i, name, tuple(t for t in drawn if t.env_name == name)) for i, name in enumerate(names))


COMPARED = {"metaworld": ("3.1.1",), "mujoco": ("3.3.0",)}
"""Versions for which the 50 accelerated classes gave the same bits as the official ones, over whole episodes."""


def not_compared() -> str:
    """Installed packages that the accelerated classes were not compared with, such as "metaworld 3.2.0"; "" if none."""
    return ", ".join(f"{name} {version(name)}" for name, known in COMPARED.items() if version(name) not in known)


def versions(accelerated: bool) -> dict[str, str]:
    """Versions of the packages that define the environments, and whether the accelerated classes are used."""
    packages = {name: version(name) for name in ("metaworld", "mujoco", "gymnasium")}
    return {**packages, "metaworld_path": "accelerated" if accelerated else "official"}


@cache
def environment_class(name: str, accelerated: bool) -> type[SawyerXYZEnv]:
    """The class of a task: Meta-World's own, or the faster one with the same results bit for bit."""
    official = ALL_V3_ENVIRONMENTS[name]
    if not accelerated:
        return official
    from toppo.training.envs import accelerated as module  # uses internals of the known versions

    return module.accelerated(official)


class Episode:
    """A freshly built environment of one task, which plays one episode after another.

    Args:
        spec: the task.
        reward: "v1" or "v2".
        seed: seed of the environment's generator, which draws the goals.
        accelerated: whether to use the faster class.
    """

    def __init__(self, spec: TaskSpec, reward: str, seed: int, accelerated: bool) -> None:
        self.spec = spec
        self._env = environment_class(spec.name, accelerated)(reward_function_version=reward)
        self._env.seed(seed)

    def reset(self, goal: int | None = None) -> Float[np.ndarray, "obs"]:
        """First observation of a new episode, float64.

        Args:
            goal: index of the goal; by default one is drawn with replacement, as Meta-World does.
        """
        if goal is None:
            goal = int(self._env.np_random.choice(len(self.spec.goals)))
        self._env.set_task(self.spec.goals[goal])
        obs, _ = self._env.reset()
        return np.asarray(obs)

    def step(self, action: Float[np.ndarray, "act"]) -> tuple[Float[np.ndarray, "obs"], float, bool, bool]:
        """Observation (float64), reward, success at this step, and whether the episode is over.

        Args:
            action: every number within [-1, 1].
        """
        obs, reward, _, truncated, info = self._env.step(action)
        return obs, float(reward), bool(info["success"]), bool(truncated)

    def close(self) -> None:
        """Release the simulator's memory. The next environment of the task reuses it, and is then built faster."""
        self._env.close()


def environment_seed(seed: int, *key: int) -> int:
    """Seed of an environment. Every key, such as (collect, task, copy), gives another seed."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


def seconds_per_cost(reward: str, steps: int = 300) -> float:
    """CPU seconds on this machine for one unit of `toppo.training.envs.costs.step_cost`.

    It is measured with a reset and a few hundred steps of one task.

    Args:
        reward: "v1" or "v2".
        steps: number of steps to measure.
    """
    name = "drawer-close-v3"
    (spec,) = task_specs(name, seed=0)
    env = Episode(spec, reward, seed=0, accelerated=not not_compared())
    action = np.zeros(ACTION_DIM, np.float32)
    start = time.process_time()
    env.reset(0)
    reset = time.process_time() - start
    start = time.process_time()
    for _ in range(steps):
        env.step(action)
    return ((time.process_time() - start) / steps + reset / HORIZON) / STEP_MICROSECONDS[name]

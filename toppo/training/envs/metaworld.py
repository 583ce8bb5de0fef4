"""Meta-World through its own package: names, goals, and freshly built environments.

Two traps are closed here. `make_mt_envs` gives every sub-environment the same seed, so all tasks and copies draw the
same goal indices: each
copy gets a seed of its own. And a Meta-World reset is not free of history (the hand is settled with fixtures where the
last episode left
them): environments are built anew for every collect and every evaluation, so that both depend on nothing but their
seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import metaworld
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3, MT25_V3, MT50_V3
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from toppo.common.errors import unknown
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, N_GOALS, OBS_DIM

_BENCHMARKS = {"MT10": MT10_V3, "MT25": MT25_V3, "MT50": MT50_V3}


def task_names(benchmark: str) -> tuple[str, ...]:
    """The tasks of MT10, MT25, MT50 in Meta-World's own order, or those of a comma list.

    Raises:
        UsageError: a name that is neither; the closest is named.
    """
    if benchmark in _BENCHMARKS:
        return tuple(_BENCHMARKS[benchmark])
    names = tuple(benchmark.split(","))
    for name in names:
        if name not in ALL_V3_ENVIRONMENTS:
            kind = "task" if len(names) > 1 else "benchmark or task"
            raise unknown(kind, name, [*_BENCHMARKS, *ALL_V3_ENVIRONMENTS])
    return names


@dataclass(frozen=True)
class TaskSpec:
    """One task as a worker needs it: its name, index, and its 50 goals as Meta-World's own `Task` objects."""

    index: int
    name: str
    goals: tuple[Any, ...]


def task_specs(benchmark: str, seed: int) -> tuple[TaskSpec, ...]:
    """The tasks of a benchmark with the goals Meta-World draws for this seed (a comma list: those of `MT1(name,
    seed)`).
    """
    names = task_names(benchmark)
    if benchmark in _BENCHMARKS:
        drawn = getattr(metaworld, benchmark)(seed=seed).train_tasks
    else:
        drawn = [task for name in names for task in metaworld.MT1(name, seed=seed).train_tasks]
    return tuple(TaskSpec(i, name, tuple(t for t in drawn if t.env_name == name)) for i, name in enumerate(names))


COMPARED = {"metaworld": ("3.1.1",), "mujoco": ("3.3.0",)}
"""Versions whose 50 accelerated classes were compared with the official ones, bit for bit, over whole episodes."""


def not_compared() -> str:
    """Installed packages that the accelerated classes were not compared with, as "metaworld 3.2.0"; "" if none."""
    return ", ".join(f"{name} {version(name)}" for name, known in COMPARED.items() if version(name) not in known)


def versions(accelerated: bool) -> dict[str, str]:
    """Versions of what defines the environments, and whether they run as the package has them."""
    packages = {name: version(name) for name in ("metaworld", "mujoco", "gymnasium")}
    return {**packages, "metaworld_path": "accelerated" if accelerated else "official"}


@cache
def environment_class(name: str, accelerated: bool) -> type[SawyerXYZEnv]:
    """The class of a task: Meta-World's own, or the faster one with the same results."""
    official = ALL_V3_ENVIRONMENTS[name]
    if not accelerated:
        return official
    from toppo.training.envs import accelerated as module  # reaches into the package: only where it is a known one

    return module.accelerated(official)


class Episode:
    """A freshly built environment of one task that plays episodes to chosen or drawn goals.

    Args:
        spec: the task.
        reward: "v1" or "v2".
        seed: of the environment's generator, which draws the goals.
        accelerated: whether on the faster class.
    """

    def __init__(self, spec: TaskSpec, reward: str, seed: int, accelerated: bool) -> None:
        self.spec = spec
        self._env = environment_class(spec.name, accelerated)(reward_function_version=reward)
        self._env.seed(seed)

    def reset(self, goal: int | None = None) -> np.ndarray:
        """First observation (39,) float64 of an episode to this goal, or to one drawn with replacement, as Meta-World
        draws it.
        """
        if goal is None:
            goal = int(self._env.np_random.choice(len(self.spec.goals)))
        self._env.set_task(self.spec.goals[goal])
        obs, _ = self._env.reset()
        return np.asarray(obs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Observation (39,) float64, reward, success at this step, and whether the episode is over, after an action
        (4,) within [-1, 1].
        """
        obs, reward, _, truncated, info = self._env.step(action)
        return obs, float(reward), bool(info["success"]), bool(truncated)

    def close(self) -> None:
        """End its use: the next environment of the task takes the simulator's memory over, and is built faster."""
        self._env.close()


def environment_seed(seed: int, *key: int) -> int:
    """An environment seed of its own for every key (collect, task, copy)."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


__all__ = [
    "ACTION_DIM",
    "HORIZON",
    "N_GOALS",
    "OBS_DIM",
    "Episode",
    "TaskSpec",
    "environment_class",
    "environment_seed",
    "not_compared",
    "task_names",
    "task_specs",
    "versions",
]

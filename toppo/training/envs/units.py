"""Units of work: how a rollout phase or an evaluation is cut into pieces, and which worker plays which piece.

A unit is a few environments of one task, stepped in lockstep with one policy call per step. Every worker starts with
units of its own, with an equal share of the measured cost. A worker that has finished its units takes units of other
workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from toppo.training.envs.costs import step_cost
from toppo.training.envs.metaworld import TaskSpec
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, N_GOALS, OBS_DIM

LANES = 5
"""Number of environments in a unit. In a policy call of five rows, a row costs half of what it costs alone."""
LANE_GOALS = 2
"""Goals that each environment of a unit plays in an evaluation.

With 2 goals, a unit of an evaluation takes about a second, as a unit of a rollout does.
"""


@dataclass(frozen=True)
class Unit:
    """Environments of one task: some of its copies in a rollout, some of its goals in an evaluation."""

    spec: TaskSpec
    members: range


@dataclass(frozen=True)
class Agenda:
    """All units of a rollout or of an evaluation, and the range of units that each worker owns.

    Consecutive units are mostly of the same task. So a worker holds the MuJoCo models of few tasks.
    """

    units: tuple[Unit, ...]
    parts: tuple[range, ...]


@dataclass(frozen=True)
class Assignment:
    """What all workers agree on: the environments, the units, and the shared arrays for the results."""

    n_tasks: int
    copies: int
    episodes_per_env: int
    reward: str
    seed: int
    accelerated: bool
    collect: Agenda
    evaluation: Agenda

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every shared array."""
        k, e = self.n_tasks, self.copies * self.episodes_per_env
        return {
            "obs": ((k, e, HORIZON + 1, OBS_DIM), "f4"),
            "actions": ((k, e, HORIZON, ACTION_DIM), "f4"),
            "log_prob": ((k, e, HORIZON), "f4"),
            "rewards": ((k, e, HORIZON), "f8"),
            "success": ((k, e), "?"),
            "goal_success": ((k, N_GOALS), "?"),
            "goal_return": ((k, N_GOALS), "f8"),
            # For each worker: its first unit that nobody has taken yet, and one past its last.
            "left": ((len(self.collect.parts), 2), "i8"),
        }

    def views(self, memory: dict[str, Any]) -> dict[str, np.ndarray]:
        """The shared arrays as numpy arrays."""
        return {name: np.frombuffer(memory[name], dtype).reshape(shape) for name, (shape, dtype) in self.shapes.items()}


def units(specs: Sequence[TaskSpec], n_members: int, size: int) -> tuple[Unit, ...]:
    """Units of at most `size` members that together cover the first `n_members` copies (or goals) of every task."""
    starts = range(0, n_members, size)
    return tuple(Unit(spec, range(i, min(i + size, n_members))) for spec in specs for i in starts)


def shares(every: Sequence[Unit], n_workers: int) -> tuple[range, ...]:
    """The range of units of each worker, with about the same cost for all workers."""
    costs = np.array([len(unit.members) * step_cost(unit.spec.name) for unit in every])
    ends = np.cumsum(costs)
    middles = (ends - costs / 2) / ends[-1:]
    cuts = [*np.searchsorted(middles, np.arange(n_workers) / n_workers).tolist(), len(every)]
    return tuple(range(start, stop) for start, stop in pairwise(cuts))


def take_unit(worker: int, left: np.ndarray, lock: Any) -> int | None:
    """Index of the unit that a worker plays next; None if no unit is left.

    A worker takes its own units first, in order. Then it takes the last unit of the worker with most units left.

    Args:
        worker: number of the worker that asks.
        left: for each worker, its first unit that nobody has taken yet, and one past its last unit. Changed in place.
        lock: lock that is held while `left` is read and changed.
    """
    with lock:
        if left[worker, 0] < left[worker, 1]:
            left[worker, 0] += 1
            return int(left[worker, 0]) - 1
        busiest = int((left[:, 1] - left[:, 0]).argmax())
        if left[busiest, 0] >= left[busiest, 1]:
            return None
        left[busiest, 1] -= 1
        return int(left[busiest, 1])

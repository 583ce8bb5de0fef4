"""What the trainer needs of a simulator: whole-episode rollouts and evaluations of a policy, for all tasks at once.

A second backend is one more class with these two methods. Workers and their processes are a backend's own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Rollout:
    """Whole episodes of every task under one policy: K tasks, E episodes each, T steps each.

    Every Meta-World episode ends by truncation at T, so the last observation of an episode is there to be bootstrapped
    from.
    """

    obs: Float[np.ndarray, "K E T+1 obs"]
    """Observations without the task one-hot, float32; [:, :, T] is the final one."""
    actions: Float[np.ndarray, "K E T act"]
    """Unclipped actions, float32."""
    log_prob: Float[np.ndarray, "K E T"]
    """Of the actions under the policy that drew them, float32."""
    rewards: Float[np.ndarray, "K E T"]
    """float64."""
    success: Bool[np.ndarray, "K E"]
    """Success at any step of the episode."""


class Policy(Protocol):
    """A task-conditioned Gaussian policy; picklable, since it travels to worker processes."""

    def act(self, obs: Float[np.ndarray, "m obs"], tasks: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (m, A), float32, for float64 observations (without one-hot) of the tasks with
        these indices. The standard deviation is the task's, whatever the observation.
        """
        ...


@dataclass(frozen=True)
class Evaluation:
    """Outcome of the paper's evaluation (Section B.1): every goal of every task once, with the mean action."""

    success: Bool[np.ndarray, "K goals"]
    """Success at any step of the episode."""
    returns: Float[np.ndarray, "K goals"]
    """Undiscounted return up to the end of the episode, which is its first success."""

    @property
    def success_rate(self) -> Float[np.ndarray, "K"]:
        """Share of a task's goals that were reached."""
        rate: np.ndarray = self.success.mean(axis=1)
        return rate


Progress = Callable[[int], None]
"""Called now and then with the environment steps done in the running call; may raise to abandon it."""


Arrived = Callable[[int, slice], None]
"""Called with a task's index and episodes of it that have been played to their end."""


def unheeded(_task: int, _episodes: slice) -> None:
    """An `Arrived` for who waits for the whole."""


class Backend(Protocol):
    """A simulator of K tasks."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """K names, in the order of every array's first axis."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Name and version of the packages that define the environments, and by which path they are stepped."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What its user should know of how it differs from the official package as it is; a line each."""
        ...

    @property
    def arrays(self) -> Rollout:
        """Where rollouts are written to, while they are played."""
        ...

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        """One collect of whole episodes: a function of seed, `collect` and policy. Nothing carries over.

        Args:
            policy: that plays.
            collect: its number.
            progress: see `Progress`.
            arrived: told of every episode once, some at a time, when they stand in `arrays`.

        Returns:
            `arrays`: valid until the next call.
        """
        ...

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """The paper's evaluation: a function of seed and policy, as `rollout` is."""
        ...

    def close(self) -> None:
        """Release processes and memory."""
        ...

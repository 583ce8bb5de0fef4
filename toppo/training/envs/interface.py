"""What the trainer needs of a simulator: whole episodes of every task under a policy, and an evaluation of the policy.

Another simulator is one more class with the methods of `Backend`. It manages its own processes and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Rollout:
    """Whole episodes of every task under one policy: K tasks, E episodes of each, T steps of each episode.

    Every Meta-World episode ends by truncation at T. The observation after the last step is kept, so that the value of
    this state can be bootstrapped.
    """

    obs: Float[np.ndarray, "K E T+1 obs"]
    """Observations without the task's one-hot, float32; [:, :, T] is the last one of the episode."""
    actions: Float[np.ndarray, "K E T act"]
    """Actions before they are clipped to [-1, 1], float32."""
    log_prob: Float[np.ndarray, "K E T"]
    """Log-density of the actions under the policy that drew them, float32."""
    rewards: Float[np.ndarray, "K E T"]
    """Rewards, float64."""
    success: Bool[np.ndarray, "K E"]
    """Whether the episode succeeded at any of its steps."""


class Policy(Protocol):
    """A Gaussian policy that knows its task. It can be pickled, because it travels to worker processes."""

    def act(self, obs: Float[np.ndarray, "m obs"], tasks: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the actions, (m, A) float32 each.

        Args:
            obs: observations without the one-hot, float64.
            tasks: the index of each row's task. The standard deviation depends on the task alone.
        """
        ...


@dataclass(frozen=True)
class Evaluation:
    """Result of the paper's evaluation (Section B.1): every goal of every task once, with the mean action."""

    success: Bool[np.ndarray, "K goals"]
    """Whether the episode succeeded at any of its steps."""
    returns: Float[np.ndarray, "K goals"]
    """Undiscounted return of the episode, which ends at its first success."""

    @property
    def success_rate(self) -> Float[np.ndarray, "K"]:
        """Share of each task's goals that were reached."""
        rate: np.ndarray = self.success.mean(axis=1)
        return rate


Progress = Callable[[int], None]
"""Called several times during a rollout or an evaluation, with the environment steps done so far.

If it raises, the rollout or evaluation is abandoned.
"""

Arrived = Callable[[int, slice], None]
"""Called with the index of a task and with the indices of its finished episodes."""


def unheeded(_task: int, _episodes: slice) -> None:
    """Do nothing. This is the `Arrived` of callers that wait for the whole rollout."""


class Backend(Protocol):
    """A simulator of K tasks."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The K task names, in the order of every array's first axis."""
        ...

    @property
    def obs_dim(self) -> int:
        """Length of an observation, without the task's one-hot."""
        ...

    @property
    def action_dim(self) -> int:
        """Length of an action."""
        ...

    @property
    def horizon(self) -> int:
        """Steps of an episode, T."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Names and versions of the packages behind the environments, and the way the environments are stepped."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the user about differences from the official package."""
        ...

    @property
    def arrays(self) -> Rollout:
        """The arrays that a rollout is written to while it is played."""
        ...

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        """One rollout phase (a collect) of whole episodes.

        It depends on the seed, on `collect` and on the policy, and on nothing that was played before.

        Args:
            policy: plays the episodes.
            collect: the number of the collect.
            progress: see `Progress`.
            arrived: called once for every episode, when the episode is complete in `arrays`.

        Returns:
            `arrays`, valid until the next call.
        """
        ...

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """The paper's evaluation. It depends on the seed and on the policy alone."""
        ...

    def close(self) -> None:
        """Release processes and memory."""
        ...

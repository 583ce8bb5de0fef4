"""Numbers of minibatches, grouped by the environment steps at which each minibatch was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Steps:
    """The distinct environment steps of N minibatches, and which minibatches belong to each.

    Attributes:
        env_steps: increasing, (T,).
        member: for each minibatch, the index of its steps in `env_steps`, (N,).
    """

    env_steps: Int[np.ndarray, "T"]
    member: Int[np.ndarray, "N"]

    @classmethod
    def of(cls, env_steps: Int[np.ndarray, "N"]) -> Steps:
        """The distinct steps, from those of each minibatch."""
        distinct, member = np.unique(env_steps, return_inverse=True)
        return cls(distinct, member)

    def mean(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """Mean over the minibatches of each step."""
        return self._each(values, np.mean)

    def median(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """Median over the minibatches of each step.

        This is for ratios. One minibatch with a nearly dead task would dominate their mean.
        """
        return self._each(values, np.median)

    def range(self, values: Float[np.ndarray, "N *k"]) -> tuple[Float[np.ndarray, "T *k"], Float[np.ndarray, "T *k"]]:
        """Least and greatest value over the minibatches of each step."""
        return self._each(values, np.min), self._each(values, np.max)

    def _each(self, values: np.ndarray, gather: Callable[..., np.ndarray]) -> np.ndarray:
        return np.stack([gather(values[self.member == t], axis=0) for t in range(len(self.env_steps))])

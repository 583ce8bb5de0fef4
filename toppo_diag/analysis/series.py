"""Numbers of minibatches, gathered by the environment steps at which they were taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Steps:
    """Which of N minibatches belong to each of T steps.

    Attributes:
        env_steps: the distinct steps, increasing, (T,).
        member: index into `env_steps` of each minibatch, (N,).
    """

    env_steps: Int[np.ndarray, "T"]
    member: Int[np.ndarray, "N"]

    @classmethod
    def of(cls, env_steps: Int[np.ndarray, "N"]) -> Steps:
        """The steps of N minibatches."""
        distinct, member = np.unique(env_steps, return_inverse=True)
        return cls(distinct, member)

    def mean(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """Mean over the minibatches of each step."""
        return self._each(values, np.mean)

    def median(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """Median over the minibatches of each step: for ratios, which one dead-ish minibatch would carry away."""
        return self._each(values, np.median)

    def _each(self, values: np.ndarray, gather: Callable[..., np.ndarray]) -> np.ndarray:
        return np.stack([gather(values[self.member == t], axis=0) for t in range(len(self.env_steps))])

"""Numbers of minibatches, grouped by the steps at which each minibatch was taken. NaN is no number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

BAND = 2.0
"""Standard errors to each side of a mean that count as noise. Of numbers that are noise alone, 2 % lie below."""


@dataclass(frozen=True)
class Steps:
    """The distinct steps of N minibatches, and which minibatches belong to each.

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
        """Mean over the minibatches of each step; NaN where a step has no number."""
        return self._each(values, np.mean, np.nanmean)

    def median(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """Median over the minibatches of each step; NaN where a step has no number.

        This is for ratios. One minibatch with a nearly dead task would dominate their mean.
        """
        return self._each(values, np.median, np.nanmedian)

    def count(self, values: Float[np.ndarray, "N *k"]) -> Int[np.ndarray, "T *k"]:
        """How many minibatches of each step have a number."""
        known = np.isfinite(values)
        return np.stack([known[self.member == t].sum(axis=0) for t in range(len(self.env_steps))])

    def _each(
        self, values: np.ndarray, gather: Callable[..., np.ndarray], of_known: Callable[..., np.ndarray]
    ) -> np.ndarray:
        if not np.isnan(values).any():
            return np.stack([gather(values[self.member == t], axis=0) for t in range(len(self.env_steps))])
        found = np.full((len(self.env_steps), *values.shape[1:]), np.nan)
        for t in range(len(self.env_steps)):
            own = values[self.member == t]
            there = ~np.isnan(own).all(axis=0)
            if there.any():
                found[t, there] = of_known(own[:, there], axis=0)
        return found

    def noise(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "*k"]:
        """Standard deviation of the number of one minibatch, without what changes over training.

        It is pooled over the steps that have several minibatches. Where no step has two, it comes from the
        differences between successive steps, sqrt(mean((x_t+1 - x_t)^2) / 2) (von Neumann et al., 1941). NaN where
        there is neither.
        """
        mean, count = self.mean(values), self.count(values)
        squares = np.where(np.isfinite(values), (values - mean[self.member]) ** 2, 0.0).sum(axis=0)
        freedom = np.maximum(count - 1, 0).sum(axis=0)
        steps = np.diff(mean, axis=0)
        known = np.isfinite(steps)
        n = known.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            between = np.where(n > 1, (np.where(known, steps, 0.0) ** 2).sum(axis=0) / (2 * n), np.nan)
            return np.asarray(np.sqrt(np.where(freedom > 0, squares / freedom, between)))

    def band(self, values: Float[np.ndarray, "N *k"], least: float = 0.0) -> Float[np.ndarray, "T *k"]:
        """How far noise alone may move the mean of each step: `BAND` standard errors, each `noise` / sqrt(n).

        Args:
            values: a number for each minibatch.
            least: of the band, such as that of rounding. Where the noise is not known, the band is this.
        """
        noise = np.nan_to_num(self.noise(values), nan=0.0)
        count: np.ndarray = np.maximum(self.count(values), 1)
        return np.asarray(np.maximum(BAND * noise / np.sqrt(count), least))

    def noise_known(self, values: Float[np.ndarray, "N *k"]) -> bool:
        """Whether there are enough numbers to tell noise: two at one step, or three steps."""
        return bool(np.isfinite(self.noise(values)).any())

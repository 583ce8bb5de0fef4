"""Numbers of minibatches, grouped by the steps at which each minibatch was taken. NaN is no number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from toppo_diag.analysis.typical import with_range

BAND = 2.0
"""Standard errors to each side of a mean that count as noise. Of numbers that are noise alone, 2 % lie below."""
NEAR = 2
"""Steps to each side that count as near a step."""
_JUMP = 0.9539
"""Median of |x - y| for independent standard normal x and y."""


@dataclass(frozen=True)
class Ranged:
    """What is typical of the minibatches of each of T steps. NaN where a step has no number.

    Attributes:
        median: (T, ...). One minibatch with a nearly dead task would dominate a mean of lengths or ratios.
        low: the least value, (T, ...).
        high: the greatest value, (T, ...).
    """

    median: Float[np.ndarray, "T *k"]
    low: Float[np.ndarray, "T *k"]
    high: Float[np.ndarray, "T *k"]

    def columns(self, name: str, *at: int) -> dict[str, float]:
        """The columns of a table for one number, as `with_range`.

        Args:
            name: of the number.
            at: its index, the step first.
        """
        return with_range(name, self.median[at], self.low[at], self.high[at])


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
        """Median over the minibatches of each step; NaN where a step has no number."""
        return self._each(values, np.median, np.nanmedian)

    def ranged(self, values: Float[np.ndarray, "N *k"]) -> Ranged:
        """Median and range over the minibatches of each step."""
        low, high = self._each(values, np.min, np.nanmin), self._each(values, np.max, np.nanmax)
        return Ranged(self.median(values), low, high)

    def count(self, values: Float[np.ndarray, "N *k"]) -> Int[np.ndarray, "T *k"]:
        """How many minibatches of each step have a number."""
        known = np.isfinite(values)
        return self._gathered([known[own].sum(axis=0) for own in self._members], values.shape[1:], np.int64)

    @cached_property
    def _members(self) -> list[Int[np.ndarray, "n"]]:
        """The minibatches of each step, found with a single sort."""
        order = np.argsort(self.member, kind="stable")
        ends = np.searchsorted(self.member[order], np.arange(1, len(self.env_steps)))
        return np.split(order, ends) if len(self.env_steps) else []

    def _gathered(self, rows: list[np.ndarray], shape: tuple[int, ...], kind: type) -> np.ndarray:
        """One row for each step as an array, also where there is no step."""
        return np.stack(rows) if rows else np.empty((0, *shape), dtype=kind)

    def _each(
        self, values: np.ndarray, gather: Callable[..., np.ndarray], of_known: Callable[..., np.ndarray]
    ) -> np.ndarray:
        if len(self.env_steps) == len(self.member):  # one minibatch a step
            return np.asarray(values[np.argsort(self.member)], dtype=np.float64)
        if not np.isnan(values).any():
            return self._gathered([gather(values[own], axis=0) for own in self._members], values.shape[1:], np.float64)
        found = np.full((len(self.env_steps), *values.shape[1:]), np.nan)
        for t, members in enumerate(self._members):
            own = values[members]
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
        squares, freedom = self._within(values)
        steps = _jumps(self.mean(values))
        known = np.isfinite(steps)
        n = known.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            within = squares.sum(axis=0) / freedom.sum(axis=0)
            between = np.where(n > 1, np.where(known, steps**2, 0.0).sum(axis=0) / (2 * n), np.nan)
            return np.asarray(np.sqrt(np.where(freedom.sum(axis=0) > 0, within, between)))

    def noise_near(self, values: Float[np.ndarray, "N *k"]) -> Float[np.ndarray, "T *k"]:
        """`noise` around each step: of the minibatches of this step and of `NEAR` steps to each side.

        Where these steps have one minibatch each, it is the median of |x_t+1 - x_t| over them, divided by that of a
        normal distribution. So one jump, such as the start of a new phase, is not noise.
        """
        squares, freedom = (self._window(part, 2 * NEAR + 1, 0.0).sum(axis=1) for part in self._within(values))
        jumps = self._window(np.abs(_jumps(self.mean(values))), 2 * NEAR, np.nan)
        known = np.isfinite(jumps)
        order = np.sort(np.where(known, jumps, np.inf), axis=1)
        n = known.sum(axis=1)
        middle = [np.take_along_axis(order, np.maximum(at, 0)[:, None], axis=1)[:, 0] for at in ((n - 1) // 2, n // 2)]
        with np.errstate(invalid="ignore", divide="ignore"):
            between = np.where(n > 1, (middle[0] + middle[1]) / 2 / _JUMP, np.nan)
            return np.asarray(np.where(freedom > 0, np.sqrt(squares / freedom), between))

    def band(self, values: Float[np.ndarray, "N *k"], least: float = 0.0, *, near: bool = False) -> np.ndarray:
        """How far noise alone may move the mean of each step: `BAND` standard errors, each `noise` / sqrt(n).

        Args:
            values: a number for each minibatch, (N, ...).
            least: of the band, such as that of rounding. Where no noise is known, the band is this.
            near: whether to tell the noise around each step alone, by `noise_near`.

        Returns:
            Half the width of the band, (T, ...).
        """
        noise = self.noise_near(values) if near else self.noise(values)
        known = np.isfinite(noise)
        # a number that is seldom there has the noise of the others, which are of its kind
        noise = np.where(known, noise, np.median(noise[known]) if known.any() and not near else 0.0)
        count: np.ndarray = np.maximum(self.count(values), 1)
        return np.asarray(np.maximum(BAND * noise / np.sqrt(count), least))

    def noise_known(self, values: Float[np.ndarray, "N *k"]) -> bool:
        """Whether there are enough numbers to tell noise: two at one step, or three steps."""
        return bool(np.isfinite(self.noise(values)).any())

    def _within(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the squared distances from the mean of a step, and degrees of freedom, both (T, ...)."""
        squares = np.where(np.isfinite(values), (values - self.mean(values)[self.member]) ** 2, 0.0)
        summed = self._gathered([squares[own].sum(axis=0) for own in self._members], values.shape[1:], np.float64)
        return summed, np.maximum(self.count(values) - 1, 0)

    def _window(self, values: np.ndarray, length: int, beyond: float) -> np.ndarray:
        """The `length` rows around each step, (T, length, ...), with rows of `beyond` before the first and after."""
        edge = np.full((NEAR, *values.shape[1:]), beyond)
        padded = np.concatenate([edge, values, edge])
        return np.stack([padded[n : n + len(self.env_steps)] for n in range(length)], axis=1)


def spread_evenly(n: int, most: int) -> Int[np.ndarray, "m"]:
    """Indices of at most `most` of n things: the first, the last, and others evenly between."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(int))


def _jumps(mean: np.ndarray) -> np.ndarray:
    """What changes from the last step with a number to each later step, (T - 1, ...); NaN at steps without one."""
    at = np.arange(len(mean)).reshape(-1, *(1,) * (mean.ndim - 1))
    last = np.maximum.accumulate(np.where(np.isfinite(mean), at, 0), axis=0)
    return np.asarray(mean[1:] - np.take_along_axis(mean, last[:-1], axis=0))

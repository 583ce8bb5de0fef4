"""How long a quantity has been beyond a threshold, so that no statement rests on a single minibatch or snapshot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST_STEPS = 2
"""Distinct steps that a statement needs at least."""
LEAST_MINIBATCHES = 4
"""Minibatches that a statement needs at least."""


@dataclass(frozen=True)
class Spell:
    """A stretch of training in which a quantity stayed beyond a threshold.

    Attributes:
        since: the first steps of the stretch.
        until: the last ones; None if the recording ends within the stretch.
        value: median over the steps of the stretch.
        low, high: least and greatest number of a minibatch in the stretch; NaN where they were not asked for.
        steps: how many recorded steps it has.
    """

    since: int
    until: int | None
    value: float
    steps: int
    low: float = math.nan
    high: float = math.nan


def enough(count: Int[np.ndarray, "T *k"]) -> Bool[np.ndarray, "*k"]:
    """Whether there are enough minibatches for a statement, from how many each of T steps has."""
    found: np.ndarray = (count.sum(axis=0) >= LEAST_MINIBATCHES) & ((count > 0).sum(axis=0) >= LEAST_STEPS)
    return found


def smooth(values: Float[np.ndarray, "T *k"]) -> Float[np.ndarray, "T *k"]:
    """The median of each row and its two neighbours. The first and the last row have one neighbour."""
    none = np.full_like(values[:1], np.nan, dtype=np.float64)
    return _median(np.stack([np.concatenate([none, values[:-1]]), values, np.concatenate([values[1:], none])]))


def last_spells(
    steps: Int[np.ndarray, "T"], values: Float[np.ndarray, "T J"], threshold: float, above: bool
) -> dict[int, Spell]:
    """For each of J quantities, the stretch beyond a threshold that matters; the worst quantity first.

    That is the stretch that the recording ends in, or one over half of the recording. A single step is no stretch.

    Args:
        steps: distinct, increasing.
        values: a typical number at each step, such as the median of `Steps`.
        threshold: what the median of three neighbouring steps is compared with.
        above: whether numbers above the threshold count, or those below.

    Returns:
        The stretches by index. A quantity without one is left out.
    """
    level = smooth(values)
    with np.errstate(invalid="ignore"):
        beyond = level > threshold if above else level < threshold
    found = {}
    for j in np.flatnonzero(beyond.sum(axis=0) > 1).tolist():
        ends = _ends(beyond[:, j])
        if not beyond[-1, j]:
            ends = [(first, last) for first, last in ends if last - first + 1 >= len(steps) / 2]
        if ends and ends[-1][0] < ends[-1][1]:
            first, last = ends[-1]
            found[j] = Spell(
                since=int(steps[first]),
                until=None if last == len(steps) - 1 else int(steps[last]),
                value=float(_median(values[first : last + 1, j])),
                steps=last - first + 1,
            )
    return dict(sorted(found.items(), key=lambda item: item[1].value * (-1 if above else 1)))


def _ends(beyond: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """The first and the last index of each stretch that is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], beyond, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _median(values: np.ndarray) -> np.ndarray:
    """The median along the first axis of what is not NaN; NaN where all is."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    n = (~np.isnan(values)).sum(axis=0)[None]
    low, high = (np.take_along_axis(ordered, np.maximum(at, 0), axis=0)[0] for at in ((n - 1) // 2, n // 2 - (n == 0)))
    return np.asarray(np.where(n[0] > 0, (low + high) / 2, np.nan))

"""What is typical of several minibatches: a median with its range, and the minibatch that a picture shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import mean_abs_cosine
from toppo_diag.analysis.presence import of_pairs


def with_range(name: str, number: float, low: float, high: float) -> dict[str, float]:
    """The columns of a table for a number and its range: the number under its name, then `_low` and `_high`."""
    return {name: number, f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True)
class Typical:
    """The median of one number over n minibatches, and its range.

    Attributes:
        median: the middle value; the mean of the two middle ones for an even n. NaN if n = 0.
        low: the least value.
        high: the greatest value.
        n: minibatches that have the number. The others, NaN, do not count.
    """

    median: float
    low: float
    high: float
    n: int

    def columns(self, name: str) -> dict[str, float]:
        """The columns of a table, as `with_range`."""
        return with_range(name, self.median, self.low, self.high)


def typical(values: Float[np.ndarray, "N"]) -> Typical:
    """The median of one number over N minibatches, with its range."""
    known = values[~np.isnan(values)]
    if not known.size:
        return Typical(np.nan, np.nan, np.nan, 0)
    return Typical(float(np.median(known)), float(known.min()), float(known.max()), len(known))


def typical_of_each(values: Float[np.ndarray, "M K"]) -> Float[np.ndarray, "K"]:
    """The median of each task over those of M minibatches that have its number; NaN where none has."""
    return np.array([typical(of_task).median for of_task in values.T])


def typical_minibatch(gram: Float[np.ndarray, "N K K"]) -> int:
    """The index of the Gram that a picture of N minibatches shows: the one whose mean |cos| is the median.

    For an even N it is the lower of the two middle ones. Of several equal ones it is the first. PopArt, and any other
    rescaling of the tasks, leaves the cosines as they are. So every condition of a run shows the same minibatch.

    Args:
        gram: G of the minibatches of one snapshot.
    """
    cosine = of_pairs(mean_abs_cosine(gram), gram)
    known = int(np.isfinite(cosine).sum())  # Grams without a pair come last in the order
    return int(np.argsort(cosine, kind="stable")[max(known - 1, 0) // 2])

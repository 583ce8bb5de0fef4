"""A part of a whole on a scale that means the same for any number of tasks: from an even part, 1 / n, to the whole.

Of two tasks, one always makes half of the step or more. Of ten, one that makes half of it holds the step.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def from_even(part: Float[np.ndarray, "N"], n: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """How far a part lies on the way from 1 / n to 1, (part - 1 / n) / (1 - 1 / n).

    Args:
        part: of the whole, between 1 / n and 1.
        n: number of tasks.

    Returns:
        0 for an even part, and 1 for the whole; NaN for fewer than two tasks.

    Example:
        >>> from_even(np.array([0.5, 0.5, 1.0]), np.array([2, 10, 10])).round(3)
        array([0.   , 0.444, 1.   ])
    """
    even = 1 / np.maximum(n, 1)
    way: np.ndarray = np.divide(part - even, 1 - even, out=np.full(np.shape(part), np.nan), where=np.asarray(n) > 1)
    return way


def part_of(way: float, n: float) -> float:
    """The part that lies this far on the way from 1 / n to 1: the inverse of `from_even`."""
    return 1 / n + way * (1 - 1 / n)

"""The scalars of a Gram that people want beside their other curves. Files and live displays show the same numbers.

G = J J' is the Gram of the per-task gradients, and w the weights of the step d = J'w. A task that is absent from a
minibatch, or whose gradient is not finite, has no finite G_ii. It counts in no number, and its own numbers are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import (
    conflict_score,
    direction_shares,
    effective_rank,
    gradient_norms,
    mean_abs_cosine,
    spread,
    top_1_mass,
)

STARVED = 0.1
"""A task is starved while its share of the step is below this fraction of the even share of the tasks that count."""


def tag(side: str, name: str, task: str = "") -> str:
    """The name of a scalar among the curves of a display: side/name, or side/name/task."""
    return "/".join(filter(None, (side, name, task)))


@dataclass(frozen=True)
class Scalars:
    """Scalars of some Grams.

    Attributes:
        whole: name -> one number for each Gram, (...). The first three are NaN where fewer than two tasks have a
            gradient. `effective_rank` is NaN where no task is present. The last two are NaN where fewer than two tasks
            are present, or one of them has no weight; `top_1_mass` also where no task has a gradient:

            - `spread`: longest over shortest gradient of the live tasks.
            - `mean_abs_cosine`: mean |cos| over the pairs of live tasks.
            - `negative_pairs`: share of the pairs of live tasks whose cosine is negative.
            - `effective_rank`: number of directions that the gradients span in effect.
            - `top_1_mass`: the largest contribution ||w_i g_i|| over the sum of all.
            - `starved_tasks`: number of tasks whose share is below a tenth of the even share.
        by_task: name -> one number for each Gram and task, (..., K):

            - `norm`: ||g_i||, in the unit of the gradients.
            - `share`: w_i <g_i, d> / ||d||^2. The shares sum to 1.
    """

    whole: dict[str, np.ndarray]
    by_task: dict[str, np.ndarray]

    def named(self, side: str, tasks: Sequence[str]) -> dict[str, float]:
        """The scalars of a single Gram by their `tag`. Numbers that are NaN are left out.

        Args:
            side: the group of parameters whose gradients these are.
            tasks: the names of the K tasks.
        """
        numbers = {tag(side, name): value for name, value in self.whole.items()} | {
            tag(side, name, task): value
            for name, values in self.by_task.items()
            for task, value in zip(tasks, values, strict=True)
        }
        return {name: float(value) for name, value in numbers.items() if not np.isnan(value)}


def scalars(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"] | None = None) -> Scalars:
    """The scalars of one Gram or of a stack of Grams.

    Args:
        gram: G = J J'. All numbers are NaN where no G_ii is finite.
        weights: w on the gradients of G, as they decided the step; None takes the weights of a mean. A Gram in which
            a present task has no weight (NaN) has no step, so its shares are NaN.

    Example:
        >>> found = scalars(np.diag([9.0, 1.0, np.nan]))  # the third task is absent
        >>> found.whole["spread"].item(), found.whole["top_1_mass"].item()
        (3.0, 0.75)
        >>> found.by_task["share"]
        array([0.9, 0.1, nan])
    """
    gram = np.asarray(gram, dtype=np.float64)
    present = np.isfinite(np.diagonal(gram, axis1=-2, axis2=-1))
    n = present.sum(axis=-1)
    # A zero gradient counts in no spread and no mean. So zeros leave the other tasks out.
    gram = np.where(present[..., :, None] & present[..., None, :], gram, 0.0)
    w = np.where(present, 1.0 if weights is None else weights, 0.0)
    weighed = np.asarray(np.isfinite(w).all(axis=-1))
    norms, shares = gradient_norms(gram), direction_shares(gram, w)
    even = 1 / np.maximum(n, 1)[..., None]
    live, step = (norms > 0).sum(axis=-1), (n > 1) & weighed
    whole = {
        "spread": (spread(norms), live > 1),
        "mean_abs_cosine": (mean_abs_cosine(gram), live > 1),
        "negative_pairs": (conflict_score(gram), live > 1),
        "effective_rank": (effective_rank(gram), n > 0),
        "top_1_mass": (top_1_mass(gram, w), step & (live > 0)),
        "starved_tasks": ((present & (shares < STARVED * even)).sum(axis=-1), step),
    }
    by_task = {"norm": (norms, present), "share": (shares, present & weighed[..., None])}
    return Scalars(
        whole={name: np.where(counts, value, np.nan) for name, (value, counts) in whole.items()},
        by_task={name: np.where(counts, value, np.nan) for name, (value, counts) in by_task.items()},
    )

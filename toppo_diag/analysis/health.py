"""Whether the gradients are collinear, and whether a few tasks make the whole step (Figure D.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners import make
from toppo.combiners.geometry import contributions, direction_norm, mean_abs_cosine
from toppo_diag.analysis.typical import typical


def top_1_mass(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """The largest contribution over the sum of all, max_i ||w_i g_i|| / sum_j ||w_j g_j|| (Figure D.3, bottom).

    It is 1 / K if all tasks contribute the same, 1 if one task makes the step alone, and 0 if no task has a gradient.
    """
    lengths = contributions(gram, weights)
    total = lengths.sum(axis=-1)
    mass: np.ndarray = np.divide(lengths.max(axis=-1), total, out=np.zeros_like(total), where=total > 0)
    return mass


def direction_shares(
    gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]
) -> Float[np.ndarray, "*n K"]:
    """Each task's share of the direction d = J'w, w_i <g_i, d> / ||d||^2.

    The shares sum to 1. A negative share means that the task is outvoted by the others. FairGrad at alpha = 1 makes
    each share 1 / K, because w_i (G w)_i = 1. All shares are 0 where d = 0.
    """
    energy = direction_norm(gram, weights)[..., None] ** 2
    part = weights * np.einsum("...ij,...j->...i", gram, weights)
    shares: np.ndarray = np.divide(part, energy, out=np.zeros_like(part), where=energy > 0)
    return shares


@dataclass(frozen=True)
class HealthSeries:
    """The two measures of Figure D.3 in N minibatches.

    Attributes:
        mean_abs_cosine: mean |cos| over the pairs of live tasks, (N,).
        top_1_mass: the largest contribution over the sum of all, (N,).
    """

    mean_abs_cosine: Float[np.ndarray, "N"]
    top_1_mass: Float[np.ndarray, "N"]

    def columns(self) -> dict[str, float]:
        """The medians over the minibatches and their ranges, as columns of a table."""
        return {
            **typical(self.mean_abs_cosine).columns("mean_abs_cosine"),
            **typical(self.top_1_mass).columns("top_1_mass"),
        }


def health_series(gram: Float[np.ndarray, "N K K"], combiner: str) -> HealthSeries:
    """The health of N Grams under a combiner.

    Args:
        gram: G.
        combiner: spec of a combiner that needs the Gram alone.
    """
    return HealthSeries(mean_abs_cosine(gram), top_1_mass(gram, make(combiner).solve_many(gram).weights))

"""Whether the gradients are collinear, and whether a few tasks make the whole step (Figure D.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners import make
from toppo.combiners.geometry import mean_abs_cosine
from toppo_diag.analysis.presence import Known, of_pairs, solve, top_1_of_step
from toppo_diag.analysis.typical import typical


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


def health_series(gram: Float[np.ndarray, "N K K"], combiner: str, known: Known = None) -> HealthSeries:
    """The health of N Grams under a combiner.

    Args:
        gram: G.
        combiner: spec of a combiner that needs the Gram alone.
        known: whether each task is known in each Gram; None where all are.
    """
    mass = top_1_of_step(gram, solve(make(combiner), gram, known).weights, known)
    return HealthSeries(of_pairs(mean_abs_cosine(gram), gram), mass)

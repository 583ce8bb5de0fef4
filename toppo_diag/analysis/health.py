"""Whether the gradients are collinear, and whether a few tasks make the whole step (Figure D.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import mean_abs_cosine, top_1_mass
from toppo_diag.analysis.series import Steps


@dataclass(frozen=True)
class HealthSeries:
    """The two measures of Figure D.3 at T steps, means over the minibatches of each step.

    Attributes:
        env_steps: (T,).
        mean_abs_cosine: mean |cos| over the pairs of live tasks, (T,).
        top_1_mass: the largest contribution over the sum of all, (T,).
    """

    env_steps: Int[np.ndarray, "T"]
    mean_abs_cosine: Float[np.ndarray, "T"]
    top_1_mass: Float[np.ndarray, "T"]

    @property
    def medians(self) -> tuple[float, float]:
        """Medians over the steps of the mean |cos| and of the top-1 mass."""
        return float(np.median(self.mean_abs_cosine)), float(np.median(self.top_1_mass))


def health_series(env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"], combiner: str) -> HealthSeries:
    """The health of N Grams under a combiner.

    Args:
        env_steps: environment steps at which each Gram was taken.
        gram: G.
        combiner: spec of a combiner that needs the Gram alone.
    """
    steps = Steps.of(env_steps)
    weights = make(combiner).solve_many(gram).weights
    return HealthSeries(steps.env_steps, steps.mean(mean_abs_cosine(gram)), steps.mean(top_1_mass(gram, weights)))

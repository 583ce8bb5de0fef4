"""Each task's contribution to the step over training (Figure D.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import contribution_spread, contributions
from toppo_diag.analysis.presence import Known, of_known, solve
from toppo_diag.analysis.series import Ranged, Steps
from toppo_diag.analysis.typical import Typical, typical


@dataclass(frozen=True)
class ContributionSeries:
    """Contributions ||w_i g_i|| under one combiner.

    Attributes:
        env_steps: T distinct steps, (T,).
        lengths: ||w_i g_i|| over the minibatches of each step, (T, K), in the unit of the gradients.
        each: for each minibatch, (N, K).
        spreads: max / min over the live tasks of each minibatch, (N,).
        spread: their median and range.
    """

    env_steps: Int[np.ndarray, "T"]
    lengths: Ranged
    each: Float[np.ndarray, "N K"]
    spreads: Float[np.ndarray, "N"]
    spread: Typical


def contribution_series(
    env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"], combiner: str, known: Known = None
) -> ContributionSeries:
    """The contributions of the tasks in N Grams under a combiner.

    Args:
        env_steps: steps at which each Gram was taken.
        gram: G.
        combiner: spec of a combiner that needs the Gram alone.
        known: whether each task is known in each Gram; None where all are.
    """
    weights = solve(make(combiner), gram, known).weights
    each = of_known(contributions(gram, weights), known)
    steps, spreads = Steps.of(env_steps), contribution_spread(gram, weights)
    return ContributionSeries(steps.env_steps, steps.ranged(each), each, spreads, typical(spreads))


def largest_difference(a: Float[np.ndarray, "N K"], b: Float[np.ndarray, "N K"]) -> float:
    """The largest |a - b|, relative to the largest |a| in the same minibatch."""
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    largest = np.maximum(np.abs(a).max(axis=1, keepdims=True), np.finfo(float).tiny)
    return float(np.max(np.abs(a - b) / largest))

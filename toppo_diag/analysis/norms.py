"""Figure 2: how long each task's gradient is over training, and the step that two aggregators make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import direction_norm, gradient_norms, spread
from toppo_diag.analysis.series import Steps


@dataclass(frozen=True)
class NormSeries:
    """Lengths at T steps, in the unit of the gradients; means over the minibatches of a step.

    Attributes:
        env_steps: (T,).
        norms: ||g_i||, (T, K); 0 for a dead task.
        mean_norm: ||K^-1 sum_i g_i||, of the mean aggregator, (T,).
        fairgrad_norm: ||sum_i w_i g_i|| of FairGrad at alpha = 1, (T,): sqrt(K) by Theorem 1, K counting live tasks.
        spread: max_i ||g_i|| / min_i ||g_i|| over live tasks of a minibatch; median over those of a step, (T,).
        median_spread: over all minibatches.
    """

    env_steps: Int[np.ndarray, "T"]
    norms: Float[np.ndarray, "T K"]
    mean_norm: Float[np.ndarray, "T"]
    fairgrad_norm: Float[np.ndarray, "T"]
    spread: Float[np.ndarray, "T"]
    median_spread: float


def norm_series(env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"]) -> NormSeries:
    """The lines of Figure 2 from N Grams and the steps at which each was taken."""
    steps = Steps.of(env_steps)
    lengths = gradient_norms(gram)
    spreads = spread(lengths)

    def combined(spec: str) -> Float[np.ndarray, "N"]:
        return direction_norm(gram, make(spec).solve_many(gram).weights)

    return NormSeries(
        env_steps=steps.env_steps,
        norms=steps.mean(lengths),
        mean_norm=steps.mean(combined("mean")),
        fairgrad_norm=steps.mean(combined("fairgrad:alpha=1")),
        spread=steps.median(spreads),
        median_spread=float(np.median(spreads)),
    )

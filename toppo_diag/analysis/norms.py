"""The length of each task's gradient over training, and of the steps of two combiners (Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import direction_norm, gradient_norms, spread
from toppo_diag.analysis.series import Steps


@dataclass(frozen=True)
class NormSeries:
    """Lengths at T environment steps, in the unit of the gradients. Each is a mean over the minibatches of a step.

    Attributes:
        env_steps: (T,).
        norms: ||g_i||, (T, K); 0 for a dead task.
        mean_norm: ||d|| of the mean, d = sum_i g_i / K, (T,).
        fairgrad_norm: ||d|| of FairGrad at alpha = 1, d = J'w, (T,). By Theorem 1 it is the square root of the number
            of live tasks.
        spread: max_i ||g_i|| / min_i ||g_i|| over the live tasks of a minibatch, median over the minibatches of a
            step, (T,).
        median_spread: median over all minibatches.
    """

    env_steps: Int[np.ndarray, "T"]
    norms: Float[np.ndarray, "T K"]
    mean_norm: Float[np.ndarray, "T"]
    fairgrad_norm: Float[np.ndarray, "T"]
    spread: Float[np.ndarray, "T"]
    median_spread: float


def norm_series(env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"]) -> NormSeries:
    """The lines of Figure 2, from N Grams and the environment steps at which each was taken."""
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

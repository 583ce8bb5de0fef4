"""The length of each task's gradient over training, and of the steps of two combiners (Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import direction_norm, gradient_norms, spread
from toppo_diag.analysis.presence import Known, of_known, of_pairs, of_some, solve
from toppo_diag.analysis.series import Ranged, Steps
from toppo_diag.analysis.typical import Typical, typical


@dataclass(frozen=True)
class NormSeries:
    """Lengths at T steps, in the unit of the gradients, with the range over the minibatches of a step.

    Attributes:
        env_steps: (T,).
        norms: ||g_i||, (T, K); 0 for a dead task, NaN for one that is not known.
        mean_norm: ||d|| of the mean, d = sum_i g_i / K, (T,).
        fairgrad_norm: ||d|| of FairGrad at alpha = 1, d = J'w, (T,). By Theorem 1 it is the square root of the number
            of live tasks.
        spread: max_i ||g_i|| / min_i ||g_i|| over the live tasks of a minibatch, (T,).
        typical: of `spread`, `mean_norm` and `fairgrad_norm`, the median and range over all minibatches.
    """

    env_steps: Int[np.ndarray, "T"]
    norms: Ranged
    mean_norm: Ranged
    fairgrad_norm: Ranged
    spread: Ranged
    typical: Mapping[str, Typical]


def norm_series(env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"], known: Known = None) -> NormSeries:
    """The lines of Figure 2.

    Args:
        env_steps: steps at which each Gram was taken.
        gram: G.
        known: whether each task is known in each Gram; None where all are.
    """
    steps = Steps.of(env_steps)
    lengths = gradient_norms(gram)
    spreads = of_pairs(spread(lengths), gram)

    def combined(spec: str) -> Float[np.ndarray, "N"]:
        return of_some(direction_norm(gram, solve(make(spec), gram, known).weights), known)

    each = {"spread": spreads, "mean_norm": combined("mean"), "fairgrad_norm": combined("fairgrad:alpha=1")}
    return NormSeries(
        env_steps=steps.env_steps,
        norms=steps.ranged(of_known(lengths, known)),
        **{name: steps.ranged(values) for name, values in each.items()},
        typical={name: typical(values) for name, values in each.items()},
    )

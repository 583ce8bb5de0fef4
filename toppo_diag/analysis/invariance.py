"""Figure D.5 and Corollary 1: does rescaling the tasks' gradients change their step? On Gaussian gradients, and on the
minibatches of a dump.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners import Combiner, Status, invariance, popart_scales

DIMENSION = 1024
"""Of the Gaussian gradients, as in Section C.5."""
FACTORS = np.geomspace(1e-2, 1e2, 41)
"""c of the single-task sweep (Figure D.5 a, b)."""
SIGMAS = np.linspace(0.0, 3.0, 13)
"""sigma of the lognormal perturbation (Figure D.5 c)."""
DRAWS = 30
"""N_boot of Figure D.5 c."""


@dataclass(frozen=True)
class Sweep:
    """One combiner on one Gram, task 0's gradient scaled by each of C factors.

    Attributes:
        cosine: of d before and after, (C,).
        distance: ||d~ - d|| / ||d||, (C,).
    """

    cosine: Float[np.ndarray, "C"]
    distance: Float[np.ndarray, "C"]


@dataclass(frozen=True)
class Perturbation:
    """One combiner on one Gram, every task scaled by c_i = exp(N(0, sigma^2)), for S sigmas.

    Attributes:
        median: of the cosine of d before and after, (S,).
        low, high: the 2.5 % and 97.5 % quantiles over the draws, (S,).
    """

    median: Float[np.ndarray, "S"]
    low: Float[np.ndarray, "S"]
    high: Float[np.ndarray, "S"]


@dataclass(frozen=True)
class Realised:
    """Corollary 1 on one dumped minibatch, raw against PopArt-rescaled gradients.

    Attributes:
        distance: ||d_PopArt - d_raw|| / ||d_raw||.
        norm_error: max | ||d||^2 / K - 1 | over both (Theorem 1).
        solved: whether the Gram is positive definite to the solver, as Theorem 1 asks.
    """

    distance: float
    norm_error: float
    solved: bool


def gaussian_gram(n_tasks: int, seed: int = 0) -> Float[np.ndarray, "K K"]:
    """Gram of K standard Gaussian gradients of dimension 1024."""
    J = np.random.default_rng(seed).standard_normal((n_tasks, DIMENSION))
    gram: np.ndarray = J @ J.T
    return gram


@dataclass(frozen=True)
class Handed:
    """What a combiner is handed beside the Gram, where it takes it: the same before and after a rescaling."""

    losses: Float[np.ndarray, "K"] | None = None
    order: np.ndarray | None = None

    @classmethod
    def fixed(cls, combiner: Combiner, n_tasks: int) -> Handed:
        """Losses of 1 and one order, for a synthetic Gram."""
        order = combiner.draw_order(np.random.default_rng(0), n_tasks)
        return cls(np.ones(n_tasks) if combiner.needs_losses else None, order)


def single_task_sweep(
    combiner: Combiner, gram: Float[np.ndarray, "K K"], factors: Float[np.ndarray, "C"] = FACTORS
) -> Sweep:
    """Figure D.5 a, b: d of g_1, ..., g_K against d of c g_1, g_2, ..., g_K."""
    c = np.ones((len(factors), len(gram)))
    c[:, 0] = factors
    handed = Handed.fixed(combiner, len(gram))
    found = [invariance(gram, row, combiner, losses=handed.losses, order=handed.order) for row in c]
    return Sweep(np.array([f.cosine for f in found]), np.array([f.distance for f in found]))


def lognormal_perturbation(
    combiner: Combiner,
    gram: Float[np.ndarray, "K K"],
    sigmas: Float[np.ndarray, "S"] = SIGMAS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Perturbation:
    """Figure D.5 c: all tasks rescaled at random; every combiner sees the same draws."""
    normal = np.random.default_rng(seed).standard_normal((draws, len(gram)))
    handed = Handed.fixed(combiner, len(gram))
    cosine = np.array(
        [
            [invariance(gram, np.exp(s * z), combiner, losses=handed.losses, order=handed.order).cosine for z in normal]
            for s in sigmas
        ]
    )
    low, median, high = np.quantile(cosine, [0.025, 0.5, 0.975], axis=1)
    return Perturbation(median, low, high)


def realised(combiner: Combiner, raw_gram: Float[np.ndarray, "K K"], sigma: Float[np.ndarray, "K"]) -> Realised:
    """Corollary 1 on a minibatch: the combiner on raw gradients, and on sigma_i^-2 times them.

    Args:
        combiner: one that takes neither losses nor an order.
        raw_gram: of the gradients of the unmodified loss.
        sigma: PopArt's, positive.
    """
    found = invariance(raw_gram, popart_scales(sigma), combiner)
    statuses = {found.before.status, found.after.status}
    return Realised(found.distance, found.norm_error, statuses <= {Status.OK, Status.AT_FLOOR})

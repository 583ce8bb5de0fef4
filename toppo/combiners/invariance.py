"""Theorem 1 and Corollary 1 of the TOPPO paper, measured: does rescaling the gradients change the direction?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners.base import Combiner, Record
from toppo.combiners.errors import CombinerError
from toppo.combiners.fairgrad import FairGrad
from toppo.combiners.geometry import direction_norm
from toppo.combiners.gram import check_gram


@dataclass(frozen=True, slots=True)
class Invariance:
    """The direction d of some gradients, compared with d~ of the rescaled gradients c_i g_i.

    Attributes:
        distance: ||d~ - d|| / ||d||; 0 where Theorem 1 holds.
        cosine: cosine of the angle between d and d~.
        norm: ||d||, in the unit of d.
        norm_rescaled: ||d~||, in the unit of d.
        norm_error: the larger of | ||d||^2 / K - 1 | and | ||d~||^2 / K - 1 |, with K the number of live tasks. By the
            norm identity of Theorem 1 it is 0.
        before, after: the combiner's records of both calls.
    """

    distance: float
    cosine: float
    norm: float
    norm_rescaled: float
    norm_error: float
    before: Record
    after: Record


def rescale(gram: Float[np.ndarray, "K K"], c: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K K"]:
    """The Gram of the rescaled gradients c_i g_i, G~_ij = c_i c_j G_ij.

    Args:
        gram: G = J J'.
        c: one factor per task.
    """
    rescaled: np.ndarray = gram * c[:, None] * c
    return rescaled


def popart_scales(sigma: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """The factor by which PopArt scales each critic gradient, c_i = sigma_i^-2 (TOPPO, Equation 2 and Corollary 1).

    Args:
        sigma: PopArt's standard deviation of the returns, one per task.

    Raises:
        CombinerError: a sigma is not positive and finite. It is also a ValueError.

    Example:
        >>> popart_scales(np.array([1.0, 2.0]))
        array([1.  , 0.25])
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise CombinerError("every sigma must be positive and finite")
    return sigma**-2


def invariance(
    gram: Float[np.ndarray, "K K"],
    c: Float[np.ndarray, "K"],
    combiner: Combiner | None = None,
    *,
    losses: Float[np.ndarray, "K"] | None = None,
    order: np.ndarray | None = None,
) -> Invariance:
    """How far d moves when each gradient g_i becomes c_i g_i. By Theorem 1, the d of FairGrad at alpha = 1 stays.

    Corollary 1 is the case c = `popart_scales`(sigma). Both directions are combinations of the same g_i: d = J'w and
    d~ = J'(c w~). So their difference is J'delta with delta = c w~ - w. Its length sqrt(delta'G delta) suffers no
    cancellation. So even a difference of the size of rounding can be told from zero.

    Args:
        gram: G = J J', shape (K, K).
        c: positive factors, shape (K,).
        combiner: FairGrad at alpha = 1 if None. Both calls start from its present state, which is then put back.
        losses, order: passed to the combiner, the same for both calls.

    Raises:
        CombinerError: `gram` is not a Gram, or `c` is not (K,), positive and finite. It is also a ValueError.

    Example:
        >>> found = invariance(np.array([[1.0, 0.5], [0.5, 4.0]]), np.array([10.0, 0.1]))
        >>> found.distance < 1e-12
        True
    """
    gram = check_gram(gram)
    c = np.asarray(c, dtype=np.float64)
    if c.shape != (len(gram),) or not (np.isfinite(c).all() and (c > 0).all()):
        raise CombinerError(f"c must hold one positive finite factor for each of the {len(gram)} tasks")
    combiner = FairGrad() if combiner is None else combiner
    state = combiner.state()
    before = combiner.combine(gram, losses=losses, order=order)
    combiner.restore(state)
    after = combiner.combine(rescale(gram, c), losses=losses, order=order)
    combiner.restore(state)

    w, rescaled = before.weights, c * after.weights
    delta = rescaled - w
    norm, norm_rescaled = (float(direction_norm(gram, v)) for v in (w, rescaled))
    n_live = np.count_nonzero(np.diagonal(gram))
    errors = [abs(length**2 / n_live - 1) if n_live else 0.0 for length in (norm, norm_rescaled)]
    product = norm * norm_rescaled
    return Invariance(
        distance=float(direction_norm(gram, delta)) / norm if norm else 0.0,
        cosine=float(w @ gram @ rescaled) / product if product else 1.0,
        norm=norm,
        norm_rescaled=norm_rescaled,
        norm_error=max(errors),
        before=before.record,
        after=after.record,
    )

"""Theorem 1 and Corollary 1 of the TOPPO paper, measured: does rescaling the tasks' gradients change their step?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.combiners.base import Combiner, Record
from toppo.combiners.fairgrad import FairGrad
from toppo.combiners.geometry import direction_norm
from toppo.combiners.gram import check_gram


@dataclass(frozen=True, slots=True)
class Invariance:
    """The combined gradient d of a Gram against d~ of the same gradients rescaled, g_i -> c_i g_i.

    Attributes:
        distance: ||d~ - d|| / ||d||; 0 where Theorem 1 holds.
        cosine: of the angle between d and d~.
        norm: ||d||, in the unit of the gradients.
        norm_rescaled: ||d~||.
        norm_error: max | ||d||^2 / K - 1 | over both, K counting live tasks: 0 by Theorem 1's norm identity.
        before, after: what the combiner recorded.
    """

    distance: float
    cosine: float
    norm: float
    norm_rescaled: float
    norm_error: float
    before: Record
    after: Record


def rescale(gram: Float[np.ndarray, "K K"], c: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K K"]:
    """The Gram of c_i g_i: G~_ij = c_i c_j G_ij."""
    rescaled: np.ndarray = gram * c[:, None] * c
    return rescaled


def popart_scales(sigma: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """c_i = sigma_i^-2, what PopArt multiplies task i's critic gradient by (Equation 2, Corollary 1).

    Raises:
        ValueError: a sigma is not positive and finite.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise ValueError("every sigma must be positive and finite")
    return sigma**-2


def invariance(
    gram: Float[np.ndarray, "K K"],
    c: Float[np.ndarray, "K"],
    combiner: Combiner | None = None,
    *,
    losses: Float[np.ndarray, "K"] | None = None,
    order: np.ndarray | None = None,
) -> Invariance:
    """Theorem 1: d before and after g_i -> c_i g_i. Corollary 1 is c = `popart_scales`(sigma).

    Both directions are combinations of the same g_i, d = sum_i w_i g_i and d~ = sum_i c_i w~_i g_i, so their difference
    is sum_i delta_i g_i with delta = c w~ - w, and its length sqrt(delta'G delta) suffers no cancellation: differences
    down to rounding are told from zero.

    Args:
        gram: G, shape (K, K).
        c: positive factors, shape (K,).
        combiner: FairGrad at alpha = 1 where None. A stateful one is asked twice from its state as it is, and left
            there.
        losses, order: handed to the combiner.

    Raises:
        ValueError: the Gram is not one, or c is not (K,), positive and finite.
    """
    gram = check_gram(gram)
    c = np.asarray(c, dtype=np.float64)
    if c.shape != (len(gram),) or not (np.isfinite(c).all() and (c > 0).all()):
        raise ValueError(f"c must hold one positive finite factor for each of the {len(gram)} tasks")
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

"""Grams of rescaled gradients: the trainer's common factor, and PopArt's rescaling taken back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.invariance import rescale


def scaled(gram: Float[np.ndarray, "*n K K"], factor: float) -> Float[np.ndarray, "*n K K"]:
    """The Gram of c g_i, that is, c^2 G. The factor c is the same for all tasks.

    Args:
        gram: G of the g_i.
        factor: c, such as the value loss weight c_v of the critic.
    """
    product: np.ndarray = factor**2 * gram
    return product


def without_popart(gram: Float[np.ndarray, "*n K K"], sigma: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K K"]:
    """The critic Gram that the loss without PopArt would have given with the same network weights.

    PopArt divides each gradient by sigma_i^2 (Equation 2; Section D.2), so the raw G_ij = sigma_i^2 sigma_j^2 G_ij.
    Cosines do not change.

    Args:
        gram: G of the PopArt-normalised gradients.
        sigma: PopArt's sigma_i of the snapshot, in units of the return.
    """
    if gram.ndim == 2:
        return rescale(gram, sigma**2)
    return np.stack([without_popart(g, s) for g, s in zip(gram, sigma, strict=True)])

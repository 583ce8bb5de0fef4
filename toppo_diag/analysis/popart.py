"""PopArt's rescaling of the critic's gradients, undone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.invariance import rescale


def without_popart(gram: Float[np.ndarray, "*n K K"], sigma: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K K"]:
    """The critic Gram the unmodified loss would have given on the same weights: raw g_i = sigma_i^2 g_i (Equation 2
    inverted; Section D.2), so raw G_ij = sigma_i^2 sigma_j^2 G_ij. Cosines are untouched.

    Args:
        gram: of the PopArt-normalised gradients.
        sigma: PopArt's sigma_i of the snapshot, in units of the return.
    """
    if gram.ndim == 2:
        return rescale(gram, sigma**2)
    return np.stack([without_popart(g, s) for g, s in zip(gram, sigma, strict=True)])

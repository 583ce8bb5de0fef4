"""What a Gram says of the tasks: norms, spread, cosines, contributions. One definition each, for trainer, replay and
figures.

All take stacks: leading axes of a Gram (..., K, K) carry over. A task is dead where G_ii = 0; dead tasks count in no
spread and no mean.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def gradient_norms(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n K"]:
    """||g_i|| = sqrt(G_ii), in the unit of the gradients (Section 2)."""
    norms: np.ndarray = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    return norms


def spread(lengths: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """max_i / min_i over the live tasks, of norms (Section 3) or of contributions (Figure D.4); 1 where fewer than
    two are alive.
    """
    live = lengths > 0
    most = lengths.max(axis=-1, initial=0, where=live)
    least = lengths.min(axis=-1, initial=np.inf, where=live)
    ratio: np.ndarray = np.where(live.any(axis=-1), most, 1.0) / np.where(live.any(axis=-1), least, 1.0)
    return ratio


def cosines(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n K K"]:
    """G_ij / sqrt(G_ii G_jj) (Section 2): the diagonal is 1; rows and columns of dead tasks are 0."""
    norms = gradient_norms(gram)
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    cosine: np.ndarray = gram * inverse[..., :, None] * inverse[..., None, :]
    return cosine


def mean_abs_cosine(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n"]:
    """Mean |cos(g_i, g_j)| over the pairs i != j of live tasks (D2 of Section 3); 0 where there is no pair."""
    live = np.diagonal(gram, axis1=-2, axis2=-1) > 0
    k = gram.shape[-1]
    total = np.abs(cosines(gram) * (1 - np.eye(k))).sum(axis=(-2, -1))
    n = live.sum(axis=-1)
    mean: np.ndarray = total / np.maximum(n * (n - 1), 1)
    return mean


def contributions(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K"]:
    """Length of each task's share of the step, ||w_i g_i|| (Figure D.4).

    At alpha = 1 and a diagonal Gram, FairGrad makes them all 1; their `spread` is that of Figure D.4.

    Args:
        gram: G = J J' of the per-task gradients J (K, P).
        weights: combiner weights w.

    Returns:
        |w_i| sqrt(G_ii), in the unit of the gradients; 0 for a dead task.
    """
    lengths: np.ndarray = np.abs(weights) * gradient_norms(gram)
    return lengths


def direction_norm(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """||d|| = sqrt(w'Gw) of the step d = sum_i w_i g_i; what rounding leaves below zero counts as zero."""
    energy = np.einsum("...i,...ij,...j->...", weights, gram, weights)
    norm: np.ndarray = np.sqrt(np.maximum(energy, 0.0))
    return norm

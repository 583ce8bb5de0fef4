"""What a Gram says about the tasks: norms, spread, cosines, contributions. All of toppo uses these definitions.

G = J J' is the Gram of the per-task gradients J (K, P), with rows g_i. Every function also takes a stack of Grams
(..., K, K) and keeps its leading axes. A task is dead if G_ii is 0, or so small that its digits are lost
(`toppo.combiners.alive_tasks`). Dead tasks count in no spread and no mean.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.gram import LEAST_NORM


def gradient_norms(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n K"]:
    """Length of each task's gradient, ||g_i|| = sqrt(G_ii) (Section 2 of the TOPPO paper).

    Args:
        gram: G = J J'.

    Returns:
        The norms, in the unit of the gradients; 0 for a dead task.

    Example:
        >>> gradient_norms(np.diag([9.0, 16.0]))
        array([3., 4.])
    """
    norms = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    known: np.ndarray = np.where(norms < LEAST_NORM, 0.0, norms)
    return known


def spread(lengths: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """Largest length over smallest length of the live tasks, max_i / min_i.

    Section 3 of the TOPPO paper shows the spread of gradient norms. Figure D.4 shows that of contributions.

    Args:
        lengths: `gradient_norms` or `contributions`; 0 for a dead task.

    Returns:
        The ratio, without a unit; 1 where fewer than two tasks are alive.
    """
    live = lengths > 0
    most = lengths.max(axis=-1, initial=0, where=live)
    least = lengths.min(axis=-1, initial=np.inf, where=live)
    ratio: np.ndarray = np.where(live.any(axis=-1), most, 1.0) / np.where(live.any(axis=-1), least, 1.0)
    return ratio


def cosines(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n K K"]:
    """Cosine of the angle between every two gradients, G_ij / sqrt(G_ii G_jj) (Section 2 of the TOPPO paper).

    Args:
        gram: G = J J'.

    Returns:
        The correlation matrix R of the gradients. Its diagonal is 1. Rows and columns of dead tasks are 0.

    Example:
        >>> cosines(np.array([[4.0, -1.0], [-1.0, 1.0]]))
        array([[ 1. , -0.5],
               [-0.5,  1. ]])
    """
    norms = gradient_norms(gram)
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    cosine: np.ndarray = gram * inverse[..., :, None] * inverse[..., None, :]
    return cosine


def mean_abs_cosine(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n"]:
    """Mean of |cos(g_i, g_j)| over the pairs i != j of live tasks (D2 of Section 3 of the TOPPO paper).

    Args:
        gram: G = J J'.

    Returns:
        A number between 0 and 1; 0 where there is no pair.
    """
    live = gradient_norms(gram) > 0
    k = gram.shape[-1]
    total = np.abs(cosines(gram) * (1 - np.eye(k))).sum(axis=(-2, -1))
    n = live.sum(axis=-1)
    mean: np.ndarray = total / np.maximum(n * (n - 1), 1)
    return mean


def contributions(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K"]:
    """Length of each task's share of the direction, ||w_i g_i|| (Figure D.4 of the TOPPO paper).

    At alpha = 1 and a diagonal Gram, FairGrad makes all contributions 1. Figure D.4 shows their `spread`.

    Args:
        gram: G = J J'.
        weights: w of a combiner.

    Returns:
        |w_i| sqrt(G_ii), in the unit of d = J'w; 0 for a dead task.

    Example:
        >>> contributions(np.diag([100.0, 1.0]), np.array([0.5, 0.5]))
        array([5. , 0.5])
    """
    lengths: np.ndarray = np.abs(weights) * gradient_norms(gram)
    return lengths


def direction_norm(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """Length of the direction d = J'w, ||d|| = sqrt(w'G w).

    Args:
        gram: G = J J'.
        weights: w of a combiner.

    Returns:
        The length, in the unit of d. Where rounding makes w'G w negative, it is 0.
    """
    energy = np.einsum("...i,...ij,...j->...", weights, gram, weights)
    norm: np.ndarray = np.sqrt(np.maximum(energy, 0.0))
    return norm

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

    Section 3 of the TOPPO paper shows the spread of gradient norms.

    Args:
        lengths: `gradient_norms`; 0 for a dead task.

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

    At alpha = 1 and a diagonal Gram, FairGrad makes all contributions 1. Figure D.4 shows their `contribution_spread`.

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


def contribution_spread(
    gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]
) -> Float[np.ndarray, "*n"]:
    """Largest over smallest contribution of the live tasks (Figure D.4 of the TOPPO paper).

    Args:
        gram: G = J J'.
        weights: w of a combiner.

    Returns:
        The ratio, without a unit. It is infinite where a live task contributes nothing, as often under MGDA, and NaN
        where fewer than two tasks are alive or none contributes.

    Example:
        >>> contribution_spread(np.diag([100.0, 1.0, 0.0]), np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
        array([10., inf])
    """
    live = gradient_norms(gram) > 0
    lengths = contributions(gram, weights)
    most = lengths.max(axis=-1, initial=0, where=live)
    least = lengths.min(axis=-1, initial=np.inf, where=live)
    some = (live.sum(axis=-1) > 1) & (most > 0)
    with np.errstate(divide="ignore"):
        ratio: np.ndarray = np.divide(most, least, out=np.full(np.shape(most), np.nan), where=some)
    return ratio


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


def live_pairs(gram: Float[np.ndarray, "*n K K"]) -> np.ndarray:
    """True where tasks i != j both have a gradient, (..., K, K)."""
    live = gradient_norms(gram) > 0
    pairs: np.ndarray = live[..., :, None] & live[..., None, :] & ~np.eye(gram.shape[-1], dtype=bool)
    return pairs


def conflict_score(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n"]:
    """Share of the pairs of live tasks with cos(g_i, g_j) < 0; 0 where there is no pair.

    For the Gram of one layer this is Recon's conflict score at threshold S = 0, divided by the number of pairs (Shi et
    al., Recon, ICLR 2023). It counts signs, also those of noise.
    """
    pairs = live_pairs(gram)
    n = pairs.sum(axis=(-2, -1))
    share: np.ndarray = ((gram < 0) & pairs).sum(axis=(-2, -1)) / np.maximum(n, 1)
    return share


def effective_rank(gram: Float[np.ndarray, "*n K K"]) -> Float[np.ndarray, "*n"]:
    """Effective rank of the cosine matrix of the live tasks, exp(-sum_k p_k log p_k) (Roy and Vetterli, 2007).

    The p_k are the eigenvalues over their sum. Orthogonal gradients give the number of live tasks. Parallel or
    anti-parallel gradients give 1. If all tasks are dead, the result is 0.
    """
    live = gradient_norms(gram) > 0
    values = np.clip(np.linalg.eigvalsh(cosines(gram)), 0.0, None)
    total = values.sum(axis=-1, keepdims=True)
    p = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    entropy = -np.sum(p * np.log(p, out=np.zeros_like(p), where=p > 0), axis=-1)
    rank: np.ndarray = np.where(live.any(axis=-1), np.exp(entropy), 0.0)
    return rank


def top_1_mass(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """The largest contribution over the sum of all, max_i ||w_i g_i|| / sum_j ||w_j g_j|| (Figure D.3, bottom).

    It is 1 / K if all tasks contribute the same, 1 if one task makes the step alone, and 0 if no task has a gradient.
    """
    lengths = contributions(gram, weights)
    total = lengths.sum(axis=-1)
    mass: np.ndarray = np.divide(lengths.max(axis=-1), total, out=np.zeros_like(total), where=total > 0)
    return mass


def direction_shares(
    gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]
) -> Float[np.ndarray, "*n K"]:
    """Each task's share of the direction d = J'w, w_i <g_i, d> / ||d||^2.

    The shares sum to 1. A negative share means that the task is outvoted by the others. FairGrad at alpha = 1 makes
    each share 1 / K, because w_i (G w)_i = 1. All shares are 0 where d = 0.
    """
    energy = direction_norm(gram, weights)[..., None] ** 2
    part = weights * np.einsum("...ij,...j->...i", gram, weights)
    shares: np.ndarray = np.divide(part, energy, out=np.zeros_like(part), where=energy > 0)
    return shares

"""What the agents see: normalised gradients and losses in one joint vector. Each agent sees a part of this vector."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks, check_positive_losses

Normalisation = Literal["l2", "loss", "loss+", "none"]


def gradient_scales(
    gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"], how: Normalisation, method: str
) -> Float[np.ndarray, "K"]:
    """The number that each gradient is divided by, as in the code of MGDA (Sener and Koltun, 2018).

    Args:
        gram: G = J J'.
        losses: L, one per task.
        how: "l2" for ||g_i||, "loss" for L_i, "loss+" for L_i ||g_i||, "none" for 1.
        method: the combiner's name, for messages.

    Returns:
        One number per task; 1 for a dead task, whose gradient stays 0.

    Raises:
        CombinerError: with "loss" or "loss+", a loss is not positive.
    """
    norms = gradient_norms(gram)
    scales = np.ones(len(gram))
    if how in ("l2", "loss+"):
        scales = norms
    if how in ("loss", "loss+"):
        check_positive_losses(losses, f"{method}:normalise={how}")
        scales = scales * losses
    return np.where(alive_tasks(norms), scales, 1.0)


def joint_gram(gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"]) -> Float[np.ndarray, "D"]:
    """The joint observation O of Equation 15: the upper triangle of the Gram, row by row, and then the losses.

    The lower triangle would repeat the upper one.

    Args:
        gram: Gram of the normalised gradients.
        losses: losses or log losses, one per task.

    Returns:
        A vector of D = K (K + 1) / 2 + K numbers.
    """
    return np.concatenate([gram[np.triu_indices(len(gram))], losses])


def joint_features(features: Float[np.ndarray, "K F"], losses: Float[np.ndarray, "K"]) -> Float[np.ndarray, "D"]:
    """The joint observation O of Equation 14: the rows of the features, and then the losses.

    Args:
        features: normalised gradients, or what `project` made of them.
        losses: losses or log losses, one per task.

    Returns:
        A vector of D = K F + K numbers.
    """
    return np.concatenate([features.ravel(), losses])


def local_rows(n_tasks: int, size: int, raw: bool) -> Int[np.ndarray, "K L"]:
    """The places in the joint observation that each agent sees: its row of G (or its features), and its loss.

    Args:
        n_tasks: K.
        size: D, the length of the joint observation.
        raw: True for an observation of `joint_features`, False for one of `joint_gram`.
    """
    losses = size - n_tasks + np.arange(n_tasks)[:, None]
    if raw:
        return np.hstack([np.arange(size - n_tasks).reshape(n_tasks, -1), losses])
    place = np.zeros((n_tasks, n_tasks), dtype=np.int64)
    place[np.triu_indices(n_tasks)] = np.arange(size - n_tasks)
    return np.hstack([place + np.triu(place, 1).T, losses])


def project(gradients: Float[np.ndarray, "K P"], size: int, seed: int = 0) -> Float[np.ndarray, "K F"]:
    """Features of the gradients that are short enough to observe. Their inner products are right in the mean.

    Each row is multiplied with `size` fixed vectors of random signs, divided by sqrt(size) (Achlioptas,
    Database-friendly Random Projections, 2003). Rows with P <= size are returned unchanged. A training loop needs this
    for `TaskForce` with observation=raw, because a combiner never sees J.

    Args:
        gradients: J (K, P).
        size: F, the length of a feature row.
        seed: seed of the random signs.
    """
    if gradients.shape[1] <= size:
        return np.asarray(gradients, dtype=np.float64)
    return np.asarray(gradients @ _signs(gradients.shape[1], size, seed), dtype=np.float64)


@lru_cache(maxsize=4)
def _signs(rows: int, columns: int, seed: int) -> Float[np.ndarray, "P F"]:
    signs: np.ndarray = np.random.default_rng(seed).choice([-1.0, 1.0], size=(rows, columns)) / np.sqrt(columns)
    return signs

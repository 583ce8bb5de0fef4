"""What the agents see: normalised gradients and losses, laid out in one vector for all and one row for each."""

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
    """What each gradient is divided by, as in MGDA's code (Sener and Koltun, 2018): l2 ||g_i||, loss L_i, loss+
    L_i ||g_i||, none 1. A dead task's is 1: its gradient stays 0.

    Raises:
        ValueError: loss or loss+, and a loss that is not positive.
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
    """O of Equation 15 without its repetitions: the upper triangle of G, row by row, then what is seen of the losses;
    D = K (K + 1) / 2 + K.
    """
    return np.concatenate([gram[np.triu_indices(len(gram))], losses])


def joint_features(features: Float[np.ndarray, "K F"], losses: Float[np.ndarray, "K"]) -> Float[np.ndarray, "D"]:
    """O of Equation 14, from (projected) gradients: their rows, then what is seen of the losses; D = K F + K."""
    return np.concatenate([features.ravel(), losses])


def local_rows(n_tasks: int, size: int, raw: bool) -> Int[np.ndarray, "K L"]:
    """Where in the joint observation each agent's own o_t lies: its row of G (or its gradient), then its loss.

    Args:
        n_tasks: K.
        size: D.
        raw: whether `joint_features` made the observation, or `joint_gram`.
    """
    losses = size - n_tasks + np.arange(n_tasks)[:, None]
    if raw:
        return np.hstack([np.arange(size - n_tasks).reshape(n_tasks, -1), losses])
    place = np.zeros((n_tasks, n_tasks), dtype=np.int64)
    place[np.triu_indices(n_tasks)] = np.arange(size - n_tasks)
    return np.hstack([place + np.triu(place, 1).T, losses])


def project(gradients: Float[np.ndarray, "K P"], size: int, seed: int = 0) -> Float[np.ndarray, "K F"]:
    """Rows short enough to observe: themselves where P <= size, else their products with `size` fixed random vectors
    of signs, over sqrt(size), which keeps inner products in the mean (Achlioptas, 2003).

    For loops that have the gradients and use `TaskForce` with observation=raw: no combiner sees a P-vector.
    """
    if gradients.shape[1] <= size:
        return np.asarray(gradients, dtype=np.float64)
    return np.asarray(gradients @ _signs(gradients.shape[1], size, seed), dtype=np.float64)


@lru_cache(maxsize=4)
def _signs(rows: int, columns: int, seed: int) -> Float[np.ndarray, "P F"]:
    signs: np.ndarray = np.random.default_rng(seed).choice([-1.0, 1.0], size=(rows, columns)) / np.sqrt(columns)
    return signs

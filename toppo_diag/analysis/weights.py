"""Weights that training gave the tasks, minibatch after minibatch (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def weight_shares(weights: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """w_i / sum_j |w_j|: the weights themselves where they are on the simplex, comparable where they are not; 0 where
    all are 0.
    """
    total = np.abs(weights).sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


def moving_average(values: Float[np.ndarray, "N K"], window: int) -> Float[np.ndarray, "N K"]:
    """Mean of each row and the window - 1 before it; of those there are, at the start."""
    n = len(values)
    sums = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    first = np.maximum(np.arange(1, n + 1) - window, 0)
    mean: np.ndarray = (sums[1:] - sums[first]) / (np.arange(1, n + 1) - first)[:, None]
    return mean

"""The weights that a combiner gave the tasks in training, for each minibatch (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make


def weight_shares(weights: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Each task's share of the weights, w_i / sum_j |w_j|.

    Weights on the simplex stay the same. Other weights become comparable with these. If all weights are 0, all shares
    are 0.
    """
    total = np.abs(weights).sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


def moving_average(values: Float[np.ndarray, "N K"], window: int) -> Float[np.ndarray, "N K"]:
    """Mean of each row and the window - 1 rows before it. At the start it is the mean of the rows so far."""
    n = len(values)
    sums = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    first = np.maximum(np.arange(1, n + 1) - window, 0)
    mean: np.ndarray = (sums[1:] - sums[first]) / (np.arange(1, n + 1) - first)[:, None]
    return mean


@dataclass(frozen=True)
class WeightSeries:
    """The weights of N minibatches as shares.

    Attributes:
        weights: w, (N, K).
        shares: w_i / sum_j |w_j|, (N, K).
        smooth: moving average of the shares, (N, K).
        first: the first moving average over a whole window, or over all minibatches if there are fewer, (K,).
    """

    weights: Float[np.ndarray, "N K"]
    shares: Float[np.ndarray, "N K"]
    smooth: Float[np.ndarray, "N K"]
    first: Float[np.ndarray, "K"]


def weight_series(
    weights: Float[np.ndarray, "N K"] | None, gram: Float[np.ndarray, "N K K"], window: int
) -> WeightSeries:
    """Each task's share of the weights, and its moving average.

    Args:
        weights: w; None takes the weights of a mean.
        gram: G of the same minibatches.
        window: minibatches in the moving average.
    """
    if weights is None:
        weights = make("mean").solve_many(gram).weights
    shares = weight_shares(weights)
    smooth = moving_average(shares, window)
    return WeightSeries(weights, shares, smooth, smooth[min(window, len(smooth)) - 1])


def spread_over_phase(
    env_steps: Int[np.ndarray, "N"],
    minibatch: Int[np.ndarray, "N"],
    n_minibatches: int,
    snapshot_steps: Int[np.ndarray, "S"],
    phase: int | None,
) -> Float[np.ndarray, "N"]:
    """Environment steps at which to draw each minibatch, so that the minibatches of one snapshot stand side by side.

    An update phase comes after the collect (rollout phase) that it learns from. Its minibatches are spread over the
    steps of this collect.

    Args:
        env_steps: of the snapshot of each minibatch.
        minibatch: index of each minibatch in its snapshot.
        n_minibatches: minibatches per snapshot.
        snapshot_steps: of all snapshots.
        phase: steps of one collect; None takes the smallest distance between snapshots.
    """
    length = int(np.diff(snapshot_steps).min(initial=0)) if phase is None else phase
    place: np.ndarray = env_steps - length * (1 - (minibatch + 1) / n_minibatches)
    return place

"""The weights that a combiner gave the tasks in training, for each minibatch (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


def weight_shares(weights: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Each task's share of the weights, w_i / sum_j |w_j|.

    Weights on the simplex stay the same. Other weights become comparable with these. If all weights are 0, all shares
    are 0.
    """
    total = np.abs(weights).sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


def moving_average(
    values: Float[np.ndarray, "N K"], window: int, starts: Sequence[int] = (0,)
) -> Float[np.ndarray, "N K"]:
    """Mean of each row and the window - 1 rows before it. At a start it is the mean of the rows since then.

    Args:
        values: N rows.
        window: rows in a mean.
        starts: rows at which the average begins anew, increasing; the first is 0.
    """
    return np.concatenate([_average(part, window) for part in np.split(values, starts[1:])])


def _average(values: Float[np.ndarray, "N K"], window: int) -> Float[np.ndarray, "N K"]:
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
        smooth: moving average of the shares, (N, K). It begins anew where snapshots lie apart.
        first: the first moving average over a whole window (or over the first stretch, where that is shorter), (K,).
        short: whether first, last and mean are the same by construction: one stretch, no longer than the window.
    """

    weights: Float[np.ndarray, "N K"]
    shares: Float[np.ndarray, "N K"]
    smooth: Float[np.ndarray, "N K"]
    first: Float[np.ndarray, "K"]
    short: bool


def weight_series(
    weights: Float[np.ndarray, "N K"],
    window: int,
    starts: Sequence[int] = (0,),
) -> WeightSeries:
    """Each task's share of the weights, and its moving average.

    Args:
        weights: w.
        window: minibatches in the moving average.
        starts: minibatches at which the average begins anew, from `stretches`.
    """
    shares = weight_shares(weights)
    smooth = moving_average(shares, window, starts)
    length = starts[1] if len(starts) > 1 else len(smooth)
    short = len(starts) == 1 and len(smooth) <= window
    return WeightSeries(weights, shares, smooth, smooth[min(window, length) - 1], short)


def stretches(env_steps: Int[np.ndarray, "N"], snapshot: Int[np.ndarray, "N"], phase: int | None) -> list[int]:
    """The minibatches that begin a stretch: those of snapshots that do not follow the collect of the one before.

    Args:
        env_steps: of the snapshot of each minibatch.
        snapshot: index of the snapshot of each minibatch.
        phase: steps of one collect; None counts every snapshot as one that lies apart.
    """
    apart = np.flatnonzero((np.diff(snapshot) != 0) & (np.diff(env_steps) > (phase or 0)))
    return [0, *(apart + 1).tolist()]


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

"""The weights that a combiner gave the tasks in training, for each minibatch (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo_diag.analysis.presence import Known, of_known


def weight_shares(weights: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Each task's share of the weights, w_i / sum_j |w_j|.

    Weights on the simplex stay the same. Other weights become comparable with these. If all weights are 0, all shares
    are 0. A task without a weight (NaN) has no share.
    """
    total = np.nansum(np.abs(weights), axis=1, keepdims=True)
    shares: np.ndarray = np.divide(weights, total, out=np.where(np.isnan(weights), np.nan, 0.0), where=total > 0)
    return shares


def moving_average(
    values: Float[np.ndarray, "N K"], window: int, starts: Sequence[int] = (0,)
) -> Float[np.ndarray, "N K"]:
    """Mean of each row and the window - 1 rows before it. At a start it is the mean of the rows since then.

    NaN does not count in a mean, and stays NaN.

    Args:
        values: N rows.
        window: rows in a mean.
        starts: rows at which the average begins anew, increasing; the first is 0.
    """
    return np.concatenate([_average(part, window) for part in np.split(values, starts[1:])])


def _average(values: Float[np.ndarray, "N K"], window: int) -> Float[np.ndarray, "N K"]:
    known = np.isfinite(values)
    first = np.maximum(np.arange(1, len(values) + 1) - window, 0)

    def sums(parts: np.ndarray) -> np.ndarray:
        running = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(parts, axis=0, dtype=np.float64)])
        return np.asarray(running[1:] - running[first])

    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(known, sums(np.where(known, values, 0.0)) / sums(known), np.nan)
    return mean


@dataclass(frozen=True)
class WeightSeries:
    """The weights of N minibatches as shares.

    Attributes:
        weights: w, (N, K).
        shares: w_i / sum_j |w_j|, (N, K).
        smooth: moving average of the shares, (N, K). It begins anew where snapshots lie apart.
        first: the first moving average over a whole window (or over the first stretch, where that is shorter), (K,).
        window: the most minibatches in one average: a stretch may be shorter than what was asked for.
        short: whether first, last and mean are the same by construction: one stretch, no longer than the window.
    """

    weights: Float[np.ndarray, "N K"]
    shares: Float[np.ndarray, "N K"]
    smooth: Float[np.ndarray, "N K"]
    first: Float[np.ndarray, "K"]
    window: int
    short: bool


def weight_series(
    weights: Float[np.ndarray, "N K"],
    window: int,
    starts: Sequence[int] = (0,),
    known: Known = None,
) -> WeightSeries:
    """Each task's share of the weights, and its moving average.

    Args:
        weights: w.
        window: minibatches in the moving average.
        starts: minibatches at which the average begins anew, from `stretches`.
        known: whether each task is known in each minibatch; None where all are.
    """
    weights = of_known(weights, known)
    shares = weight_shares(weights)
    smooth = moving_average(shares, window, starts)
    lengths = np.diff([*starts, len(smooth)])
    short = len(starts) == 1 and len(smooth) <= window
    most = int(min(window, lengths.max()))
    return WeightSeries(weights, shares, smooth, smooth[min(window, lengths[0]) - 1], most, short)


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
        phase: steps of one collect; None takes the smallest distance between snapshots, 0 for a single one.
    """
    apart = np.diff(snapshot_steps)
    length = phase if phase is not None else int(apart.min()) if apart.size else 0
    place: np.ndarray = env_steps - length * (1 - (minibatch + 1) / n_minibatches)
    return place

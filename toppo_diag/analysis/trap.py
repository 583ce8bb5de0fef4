"""Each task's share of the step beside its success, return or loss: the self-reinforcing tail trap of Section 3.

The paper describes the trap, and does not measure it in this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners import make
from toppo_diag.analysis.presence import Known, shares_of_step, solve
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.typical import Typical, typical


def starved_for(starved: Bool[np.ndarray, "T K"], known: Bool[np.ndarray, "T K"]) -> Int[np.ndarray, "K"]:
    """For how many snapshots, up to the last one, each task has been starved without a break.

    Args:
        starved: whether a task is starved at each of T snapshots.
        known: whether the task took part in the snapshot. If not, the snapshot is skipped.

    Returns:
        Number of snapshots, (K,); 0 for a task that is not starved at the last snapshot.
    """
    without_a_break = np.logical_and.accumulate((starved | ~known)[::-1], axis=0)
    return np.asarray((without_a_break & (starved & known)[::-1]).sum(axis=0))


@dataclass(frozen=True)
class Trap:
    """Each task's share of the direction beside its outcome, at T steps.

    Attributes:
        env_steps: (T,).
        shares: w_i <g_i, d> / ||d||^2, mean over the minibatches of each step, so that they sum to 1, (T, K); NaN
            where a task was absent.
        lowest, highest: the range of the share over the minibatches of each step, (T, K).
        outcome: success, return or loss, mean over the minibatches of each step, (T, K); None if none was recorded.
        starved: whether the share lies below the threshold by more than the noise around this step, (T, K).
        threshold: the share below which a task is starved, median over the steps.
        starved_for: snapshots at the end of the run at which a task is starved without a break, (K,).
        typical_shares: of each task, the median and range of its share over the N minibatches.
    """

    env_steps: Int[np.ndarray, "T"]
    shares: Float[np.ndarray, "T K"]
    lowest: Float[np.ndarray, "T K"]
    highest: Float[np.ndarray, "T K"]
    outcome: Float[np.ndarray, "T K"] | None
    starved: Bool[np.ndarray, "T K"]
    starved_for: Int[np.ndarray, "K"]
    threshold: float
    typical_shares: tuple[Typical, ...]

    @property
    def coincide(self) -> bool:
        """Whether all tasks with a gradient have the same share at every step, so that their lines cannot be told."""
        live = np.where(self.shares == 0, np.nan, self.shares)
        known = live[np.isfinite(live).any(axis=1)]
        apart = np.nanmax(known, axis=1, initial=-np.inf) - np.nanmin(known, axis=1, initial=np.inf)
        return bool(len(known) and self.shares.shape[1] > 1 and (np.abs(apart) < 1e-3 / self.shares.shape[1]).all())


def trap(
    env_steps: Int[np.ndarray, "N"],
    gram: Float[np.ndarray, "N K K"],
    weights: Float[np.ndarray, "N K"] | None,
    outcome: Float[np.ndarray, "N K"] | None,
    fraction: float,
    known: Known = None,
) -> Trap:
    """Each task's share of the direction d = J'w over N Grams, and for how long it is starved.

    Args:
        env_steps: steps at which each Gram was taken.
        gram: G.
        weights: w, for each Gram; None takes the weights of a mean.
        outcome: success, return or loss of each task at the time of each Gram; None if none was recorded.
        fraction: a task is starved below this fraction of an even share, 1 / (number of known tasks).
        known: whether each task is known in each Gram; None where all are.
    """
    if weights is None:
        weights = solve(make("mean"), gram, known).weights
    steps = Steps.of(env_steps)
    each = shares_of_step(gram, weights, known)
    shares = steps.mean(each)
    n = np.full(len(gram), gram.shape[-1]) if known is None else known.sum(axis=1)
    even = steps.mean(1 / np.maximum(n, 1))
    starved = shares + steps.band(each, near=True) < fraction * even[:, None]
    averaged = None if outcome is None else steps.mean(outcome)
    around = steps.ranged(each)
    return Trap(
        env_steps=steps.env_steps,
        shares=shares,
        lowest=around.low,
        highest=around.high,
        outcome=averaged,
        starved=starved,
        starved_for=starved_for(starved, np.isfinite(shares)),
        threshold=fraction * float(np.median(even)),
        typical_shares=tuple(typical(share) for share in each.T),
    )


def is_fairgrad_one(spec: object) -> bool:
    """Whether a recorded combiner is FairGrad at alpha = 1, which gives each live task the same share (Theorem 1)."""
    try:
        combiner = make(str(spec))
    except ValueError:
        return False
    return combiner.name == "fairgrad" and getattr(combiner, "alpha", None) == 1

"""Each task's share of the step beside its success: the self-reinforcing tail trap of Section 3.

The paper describes the trap, and does not measure it in this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import direction_shares
from toppo_diag.analysis.series import Steps


def starved_for(shares: Float[np.ndarray, "T K"], threshold: float) -> Int[np.ndarray, "K"]:
    """Longest run of successive snapshots in which a task's share of the direction stays below a threshold.

    Args:
        shares: w_i <g_i, d> / ||d||^2, by snapshot and task.
        threshold: the share below which a task is starved.

    Returns:
        Number of snapshots, (K,).
    """
    longest = np.zeros(shares.shape[1], dtype=np.int64)
    current = np.zeros_like(longest)
    for row in shares:
        current = np.where(row < threshold, current + 1, 0)
        longest = np.maximum(longest, current)
    return longest


@dataclass(frozen=True)
class Trap:
    """Each task's share of the direction beside its success, at T steps.

    Attributes:
        env_steps: (T,).
        shares: w_i <g_i, d> / ||d||^2, mean over the minibatches of each step, (T, K).
        success: 0 to 1, mean over the minibatches of each step, (T, K); None if it was not recorded.
        starved_for: longest run of successive snapshots in which a task's share lies below the threshold, (K,).
    """

    env_steps: Int[np.ndarray, "T"]
    shares: Float[np.ndarray, "T K"]
    success: Float[np.ndarray, "T K"] | None
    starved_for: Int[np.ndarray, "K"]

    @property
    def coincide(self) -> bool:
        """Whether all tasks with a gradient have the same share at every step, so that their lines cannot be told."""
        live = np.where(self.shares == 0, np.nan, self.shares)
        known = live[np.isfinite(live).any(axis=1)]
        apart = np.nanmax(known, axis=1, initial=-np.inf) - np.nanmin(known, axis=1, initial=np.inf)
        return bool(len(known) and self.shares.shape[1] > 1 and (np.abs(apart) < 1e-3 / self.shares.shape[1]).all())

    @property
    def median_shares(self) -> Float[np.ndarray, "K"]:
        """The median of each task's share over the steps, (K,)."""
        return np.asarray(np.median(self.shares, axis=0))


def trap(
    env_steps: Int[np.ndarray, "N"],
    gram: Float[np.ndarray, "N K K"],
    weights: Float[np.ndarray, "N K"] | None,
    success: Float[np.ndarray, "N K"] | None,
    threshold: float,
) -> Trap:
    """Each task's share of the direction d = J'w over N Grams, and for how long it is starved.

    Args:
        env_steps: environment steps at which each Gram was taken.
        gram: G.
        weights: w, for each Gram; None takes the weights of a mean.
        success: success of each task at the time of each Gram; None if it was not recorded.
        threshold: the share below which a task is starved.
    """
    if weights is None:
        weights = make("mean").solve_many(gram).weights
    steps = Steps.of(env_steps)
    shares = steps.mean(direction_shares(gram, weights))
    averaged = None if success is None else steps.mean(success)
    return Trap(steps.env_steps, shares, averaged, starved_for(shares, threshold))


def is_fairgrad_one(spec: object) -> bool:
    """Whether a recorded combiner is FairGrad at alpha = 1, which gives each live task the same share (Theorem 1)."""
    try:
        combiner = make(str(spec))
    except ValueError:
        return False
    return combiner.name == "fairgrad" and getattr(combiner, "alpha", None) == 1

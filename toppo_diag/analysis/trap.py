"""Beyond the paper: the self-reinforcing tail trap of Section 3, task by task."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def starved_for(shares: Float[np.ndarray, "T K"], threshold: float) -> Int[np.ndarray, "K"]:
    """Longest run of successive snapshots in which a task's share of the direction stays below a threshold.

    Args:
        shares: by snapshot and task, see `direction_shares`.
        threshold: below it a task is starved.

    Returns:
        Number of snapshots, (K,).
    """
    longest = np.zeros(shares.shape[1], dtype=np.int64)
    current = np.zeros_like(longest)
    for row in shares:
        current = np.where(row < threshold, current + 1, 0)
        longest = np.maximum(longest, current)
    return longest

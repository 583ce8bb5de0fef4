"""Ornstein-Uhlenbeck exploration noise, and its schedule."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

THETA, SIGMA = 0.15, 0.2
"""Lillicrap et al. (2016), Section 7."""


def ornstein_uhlenbeck(state: Float[np.ndarray, "K"], normal: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """One step of x <- (1 - theta) x + sigma N(0, 1), to which x returns with standard deviation
    sigma / sqrt(1 - (1 - theta)^2) = 0.38 and correlation (1 - theta)^lag.
    """
    return (1 - THETA) * state + SIGMA * normal


def noise_scale(call: int, first: float, last: float, calls: int) -> float:
    """What the noise is multiplied by at a call (from 0): linear from `first` to `last` over `calls`, then `last`."""
    return last + (first - last) * max(0.0, 1 - call / calls)

"""Ornstein-Uhlenbeck exploration noise and its schedule."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

THETA, SIGMA = 0.15, 0.2
"""Lillicrap et al., Continuous Control with Deep Reinforcement Learning, 2016, Section 7."""


def ornstein_uhlenbeck(state: Float[np.ndarray, "K"], normal: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """The noise after one step of x <- (1 - theta) x + sigma N(0, 1).

    After many steps its standard deviation is sigma / sqrt(1 - (1 - theta)^2) = 0.38, and its correlation over a lag is
    (1 - theta)^lag.

    Args:
        state: x before the step, one per task.
        normal: standard normal draws, one per task.
    """
    return (1 - THETA) * state + SIGMA * normal


def noise_scale(call: int, first: float, last: float, calls: int) -> float:
    """The factor on the noise at a call: linear from `first` to `last` over `calls` calls, and then `last`.

    Args:
        call: number of the call, from 0.
        first: factor at call 0.
        last: factor from call `calls` on.
        calls: length of the linear part.
    """
    return last + (first - last) * max(0.0, 1 - call / calls)

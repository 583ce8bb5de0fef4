"""What the agents are paid, all alike: R = lambda_L r_L + lambda_G r_G (Equation 21)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import cosines, direction_norm, gradient_norms


def loss_reward(before: Float[np.ndarray, "K"], after: Float[np.ndarray, "K"]) -> float:
    """r_L: the mean over tasks of the drop in (log) loss from one observation to the next."""
    return float(np.mean(before - after))


def norm_reward(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """r_G = -||G||^2 of the step G = sum_t w_t g_t: MGDA's objective, negated."""
    return -(float(direction_norm(gram, weights)) ** 2)


def imtl_reward(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """r_G of Equation 23: minus the sum of (<G, u_1> - <G, u_t>)^2 over t > 1, u_t = g_t / ||g_t|| and G the step.

    Dead tasks have no u_t and leave the sum; task 1 is the first live one.
    """
    norms = gradient_norms(gram)
    live = norms > 0
    projections = (cosines(gram) @ (weights * norms))[live]
    return -float(np.sum((projections[:1] - projections[1:]) ** 2))

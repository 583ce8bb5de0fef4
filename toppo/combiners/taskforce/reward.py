"""The reward that all agents share, R = lambda_L r_L + lambda_G r_G (Equation 21 of TaskForce's appendix)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import cosines, direction_norm, gradient_norms


def loss_reward(before: Float[np.ndarray, "K"], after: Float[np.ndarray, "K"]) -> float:
    """r_L, the mean over tasks of the drop in loss (or log loss) from one observation to the next.

    Args:
        before: losses or log losses of the first observation, one per task.
        after: losses or log losses of the second observation, one per task.
    """
    return float(np.mean(before - after))


def norm_reward(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """r_G = -||d||^2 of the direction d = J'w: MGDA's objective, negated.

    Args:
        gram: G = J J'.
        weights: w.
    """
    return -(float(direction_norm(gram, weights)) ** 2)


def imtl_reward(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
    """r_G of Equation 23, -sum_{t > 1} (<d, u_1> - <d, u_t>)^2 with d = J'w and u_t = g_t / ||g_t||.

    A dead task has no u_t and is left out. Task 1 is the first live task. (The appendix calls the direction G.)

    Args:
        gram: G = J J'.
        weights: w.
    """
    norms = gradient_norms(gram)
    live = norms > 0
    projections = (cosines(gram) @ (weights * norms))[live]
    return -float(np.sum((projections[:1] - projections[1:]) ** 2))

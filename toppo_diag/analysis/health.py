"""Figures D.3 and D.4: whether a few tasks make the step."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from toppo.combiners.geometry import contributions, direction_norm


def top_1_mass(gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n"]:
    """Largest task's part of all weighted contributions, max_i ||w_i g_i|| / sum_j ||w_j g_j|| (Figure D.3, bottom).

    1 / K where all contribute alike, 1 where one task makes the step alone; 0 where no task has a gradient.
    """
    lengths = contributions(gram, weights)
    total = lengths.sum(axis=-1)
    mass: np.ndarray = np.divide(lengths.max(axis=-1), total, out=np.zeros_like(total), where=total > 0)
    return mass


def direction_shares(
    gram: Float[np.ndarray, "*n K K"], weights: Float[np.ndarray, "*n K"]
) -> Float[np.ndarray, "*n K"]:
    """Each task's share of the combined direction d = sum_i w_i g_i: w_i <g_i, d> / ||d||^2.

    They sum to 1; a negative one belongs to a task that the others outvote. FairGrad at alpha = 1 makes each 1 / K,
    since w_i (G w)_i = 1. All 0 where d = 0.
    """
    energy = direction_norm(gram, weights)[..., None] ** 2
    part = weights * np.einsum("...ij,...j->...i", gram, weights)
    shares: np.ndarray = np.divide(part, energy, out=np.zeros_like(part), where=energy > 0)
    return shares

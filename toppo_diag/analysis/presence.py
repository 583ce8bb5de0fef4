"""Grams in which some tasks are not known: absent from the minibatch, or with a gradient that is not finite.

Such a task has 0 in its row and column of G here, as a dead task has. So every measure of the live tasks is that of the
block of known tasks. What is said of the task itself is NaN, which figures draw as a gap.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners import Combinations, Combiner
from toppo.combiners.geometry import contributions, direction_shares, gradient_norms, top_1_mass

Known = Bool[np.ndarray, "N K"] | None
"""Whether each task is known in each of N Grams; None where all are."""


def of_known(values: Float[np.ndarray, "N K"], known: Known) -> Float[np.ndarray, "N K"]:
    """Numbers of single tasks, NaN for those that are not known."""
    return values if known is None else np.where(known, values, np.nan)


def of_some(values: Float[np.ndarray, "N"], known: Known, least: int = 1) -> Float[np.ndarray, "N"]:
    """Numbers of whole Grams, NaN for those with fewer than `least` known tasks."""
    return values if known is None else np.where(known.sum(axis=1) >= least, values, np.nan)


def of_pairs(values: Float[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"]) -> Float[np.ndarray, "N"]:
    """Numbers that compare tasks, such as a spread or a mean |cos|, NaN where fewer than two tasks have a gradient."""
    return of_some(values, gradient_norms(gram) > 0, 2)


def shares_of_step(
    gram: Float[np.ndarray, "N K K"], weights: Float[np.ndarray, "N K"], known: Known = None
) -> Float[np.ndarray, "N K"]:
    """Each task's share of the direction, w_i <g_i, d> / ||d||^2, from the weights of training.

    A task that is not known has none (NaN). A Gram in which a known task has no weight has no step, so nobody has one.
    """
    w = weights if known is None else np.where(known, weights, 0.0)
    whole = np.isfinite(w).all(axis=1)
    return of_known(np.where(whole[:, None], direction_shares(gram, w), np.nan), known)


def top_1_of_step(
    gram: Float[np.ndarray, "N K K"], weights: Float[np.ndarray, "N K"], known: Known = None
) -> Float[np.ndarray, "N"]:
    """The largest contribution over the sum of all; NaN where fewer than two tasks are known, or none contributes."""
    several = np.ones(weights.shape, dtype=bool) if known is None else known
    some = (contributions(gram, weights) > 0).any(axis=1)
    return of_some(np.where(some, top_1_mass(gram, weights), np.nan), several, 2)


def solve(
    combiner: Combiner,
    gram: Float[np.ndarray, "N K K"],
    known: Known = None,
    losses: Float[np.ndarray, "N K"] | None = None,
    orders: Int[np.ndarray, "N ..."] | None = None,
) -> Combinations:
    """Every Gram combined, each over its known tasks. The weight of a task that is not known is 0.

    A combiner with a memory, or with an order of the tasks, cannot change its number of tasks. For it, the tasks that
    are not known are dead.

    Raises:
        ValueError: as `Combiner.solve_many`.
    """
    if known is None or known.all() or combiner.state_names or combiner.needs_order:
        filled = losses if losses is None or known is None else np.where(known, losses, 0.0)
        return combiner.solve_many(gram, losses=filled, orders=orders)
    found = Combinations.zeros(len(gram), gram.shape[-1])
    patterns, member = np.unique(known, axis=0, return_inverse=True)
    for n, pattern in enumerate(patterns):
        own, block = np.flatnonzero(member.ravel() == n), np.flatnonzero(pattern)
        if not len(block):
            continue
        inner = combiner.solve_many(
            gram[np.ix_(own, block, block)], losses=None if losses is None else losses[np.ix_(own, block)]
        )
        found.weights[np.ix_(own, block)] = inner.weights
        for name in ("residual", "iterations", "status", "ridge", "floor"):
            getattr(found, name)[own] = getattr(inner, name)
    return found

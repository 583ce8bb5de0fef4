"""Combines recorded Grams again with any combiner, and measures the distance to the step that training took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import Combiner
from toppo.combiners.geometry import contribution_spread, contributions, direction_norm, gradient_norms, top_1_mass
from toppo_diag.analysis.presence import Known, solve
from toppo_diag.analysis.typical import typical


@dataclass(frozen=True)
class Replay:
    """N Grams combined again, d = sum_i w_i g_i.

    Attributes:
        weights: w, (N, K).
        contributions: ||w_i g_i||, (N, K).
        progress: <g_i, d>, first-order decrease of task i's loss per unit step, (N, K).
        cosine: cos(g_i, d), (N, K); NaN for a dead task, or where d = 0.
        norm: ||d||, (N,).
        worst_progress: min_i <g_i, d> over live tasks, (N,).
        worst_cosine: min_i cos(g_i, d) over live tasks, (N,); NaN where there is none.
        spread: max over min of the contributions of live tasks, (N,); NaN where fewer than two contribute.
        top_1: largest contribution over their sum, (N,).
        residual: of the combiner's own equation, (N,).
        status: `toppo.combiners.Status`, (N,).
    """

    weights: Float[np.ndarray, "N K"]
    contributions: Float[np.ndarray, "N K"]
    progress: Float[np.ndarray, "N K"]
    cosine: Float[np.ndarray, "N K"]
    norm: Float[np.ndarray, "N"]
    worst_progress: Float[np.ndarray, "N"]
    worst_cosine: Float[np.ndarray, "N"]
    spread: Float[np.ndarray, "N"]
    top_1: Float[np.ndarray, "N"]
    residual: Float[np.ndarray, "N"]
    status: Int[np.ndarray, "N"]


def replay(
    combiner: Combiner,
    gram: Float[np.ndarray, "N K K"],
    losses: Float[np.ndarray, "N K"] | None = None,
    orders: Int[np.ndarray, "N ..."] | None = None,
    known: Known = None,
) -> Replay:
    """Every Gram, combined again. A combiner with a memory starts afresh and sees the Grams one after the other.

    Args:
        combiner: the combiner to use.
        gram: G of the gradients that the combiner sees.
        losses: the losses of each task, for a combiner that needs them.
        orders: random orders, for a combiner that needs them; None draws new ones (seed 0).
        known: whether each task is known in each Gram; None where all are.

    Raises:
        ValueError: as `Combiner.solve_many`.
    """
    combiner.restore({})
    if combiner.needs_order and orders is None:
        orders = drawn_orders(combiner, len(gram), gram.shape[-1])
    found = solve(combiner, gram, known, losses, orders)
    w = found.weights
    progress = np.einsum("nij,nj->ni", gram, w)
    lengths, norm = gradient_norms(gram), direction_norm(gram, w)
    live = lengths > 0
    product = lengths * norm[:, None]
    cosine = np.divide(progress, product, out=np.full_like(product, np.nan), where=product > 0)
    contributed = contributions(gram, w)
    least_cosine = np.min(cosine, axis=1, initial=np.inf, where=np.isfinite(cosine))
    return Replay(
        weights=w,
        contributions=contributed,
        progress=progress,
        cosine=np.clip(cosine, -1, 1),
        norm=norm,
        worst_progress=np.where(live.any(axis=1), np.min(progress, axis=1, initial=np.inf, where=live), 0.0),
        worst_cosine=np.where(np.isfinite(least_cosine), np.clip(least_cosine, -1, 1), np.nan),
        spread=contribution_spread(gram, w),
        top_1=top_1_mass(gram, w),
        residual=found.residual,
        status=found.status,
    )


def relative_distance(
    gram: Float[np.ndarray, "N K K"], weights: Float[np.ndarray, "N K"], reference: Float[np.ndarray, "N K"]
) -> Float[np.ndarray, "N"]:
    """The distance ||d - d_ref|| / ||d_ref|| of two steps on the same gradients, computed without cancellation.

    It is infinite if d_ref = 0 and d is not, and 0 if both are 0. It is NaN if a weight is not known.

    Args:
        gram: G of the gradients.
        weights: the weights of d.
        reference: the weights of d_ref.
    """
    apart, length = direction_norm(gram, weights - reference), direction_norm(gram, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(apart == 0, 0.0, apart / length)
    return ratio


def direction_cosine(
    gram: Float[np.ndarray, "N K K"], weights: Float[np.ndarray, "N K"], reference: Float[np.ndarray, "N K"]
) -> Float[np.ndarray, "N"]:
    """The cosine cos(d, d_ref) of two steps on the same gradients. NaN if one of the steps is 0.

    A step and a multiple of it have the same direction, so the sum of the gradients and their mean have cosine 1.

    Args:
        gram: G of the gradients.
        weights: the weights of d.
        reference: the weights of d_ref.
    """
    inner = np.einsum("ni,nij,nj->n", weights, gram, reference)
    lengths = direction_norm(gram, weights) * direction_norm(gram, reference)
    cosine = np.divide(inner, lengths, out=np.full_like(lengths, np.nan), where=lengths > 0)
    return np.asarray(np.clip(cosine, -1, 1))


def drawn_orders(combiner: Combiner, n_grams: int, n_tasks: int, seed: int = 0) -> Int[np.ndarray, "N ..."]:
    """Random orders for a combiner that needs them, one for each of N Grams."""
    rng = np.random.default_rng(seed)
    drawn = [combiner.draw_order(rng, n_tasks) for _ in range(n_grams)]
    return np.stack([order for order in drawn if order is not None])


@dataclass(frozen=True)
class Agreement:
    """The medians of a replay over its N Grams, and its distance to the step that training took.

    Attributes:
        apart: ||d - d_training|| / ||d_training||, (N,); NaN if training's weights are not known.
        aligned: cos(d, d_training), (N,); NaN like `apart`.
        headline: medians and ranges over the Grams, as columns of a table.
        cosine: median cosine of each task with d, (K,); NaN for a task that is always dead.
    """

    apart: Float[np.ndarray, "N"]
    aligned: Float[np.ndarray, "N"]
    headline: dict[str, float]
    cosine: Float[np.ndarray, "K"]


def agreement(found: Replay, gram: Float[np.ndarray, "N K K"], used: Float[np.ndarray, "N K"] | None) -> Agreement:
    """A summary of a replay, with its direction and distance from the step that training took.

    Args:
        found: the replay of these Grams.
        gram: G of the gradients that the combiner saw.
        used: training's weights on these gradients; None if they are not known.
    """
    apart = aligned = np.full(len(gram), np.nan)
    if used is not None:
        apart = relative_distance(gram, found.weights, used)
        aligned = direction_cosine(gram, found.weights, used)
    headline = {
        "minibatches": len(gram),
        **typical(found.norm).columns("norm"),
        **typical(found.spread).columns("spread"),
        **typical(found.top_1).columns("top_1_mass"),
        **typical(found.worst_progress).columns("worst_progress"),
        **typical(found.worst_cosine).columns("worst_cosine"),
        **typical(aligned).columns("cosine_to_training"),
        **typical(apart).columns("distance_to_training"),
    }
    return Agreement(apart, aligned, headline, np.array([typical(column).median for column in found.cosine.T]))


def cosine_table(found: Iterable[Agreement]) -> Float[np.ndarray, "C K"]:
    """The median cosine of each task with the step of each of C combiners."""
    return np.array([a.cosine for a in found])

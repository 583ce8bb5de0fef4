"""Which tasks pull against each other, how often, and in which layers (not in the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.geometry import conflict_score, cosines, effective_rank, live_pairs
from toppo_diag.analysis.series import Steps


@dataclass(frozen=True)
class Conflicts:
    """Conflicts in N Grams G = J J'. Two tasks are in conflict where cos(g_i, g_j) < 0.

    Attributes:
        share: pairs in conflict over pairs of live tasks (tasks with a gradient), for each Gram, (N,); 0 without pairs.
        effective_rank: see `effective_rank`, for each Gram, (N,).
        pair_share: share of the Grams in which a pair is in conflict, out of those where both tasks are alive, (K, K);
            NaN on the diagonal, and for a pair that is never alive together.
        pair_cosine: mean cosine over the same Grams, (K, K); NaN in the same places.
    """

    share: Float[np.ndarray, "N"]
    effective_rank: Float[np.ndarray, "N"]
    pair_share: Float[np.ndarray, "K K"]
    pair_cosine: Float[np.ndarray, "K K"]


def conflicts(gram: Float[np.ndarray, "N K K"]) -> Conflicts:
    """The conflicts in N Grams, for each Gram and for each pair of tasks."""
    cosine, pairs = cosines(gram), live_pairs(gram)
    met = pairs.sum(axis=0)
    with np.errstate(invalid="ignore"):
        pair_share = np.where(met > 0, ((cosine < 0) & pairs).sum(axis=0) / met, np.nan)
        pair_cosine = np.where(met > 0, (cosine * pairs).sum(axis=0) / met, np.nan)
    return Conflicts(conflict_score(gram), effective_rank(gram), pair_share, pair_cosine)


def ranked_pairs(found: Conflicts) -> list[tuple[int, int]]:
    """Pairs i < j that are alive together in some Gram, most often in conflict first.

    Among equals, the lower mean cosine comes first.
    """
    k = len(found.pair_share)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k) if np.isfinite(found.pair_share[i, j])]
    return sorted(pairs, key=lambda p: (-found.pair_share[p], found.pair_cosine[p]))


def ranked_layers(scores: Float[np.ndarray, "N L"]) -> Int[np.ndarray, "L"]:
    """Indices of the layers, highest mean conflict score first.

    Args:
        scores: `conflict_score` of each layer of N minibatches.
    """
    order: np.ndarray = np.argsort(-scores.mean(axis=0), kind="stable")
    return order


@dataclass(frozen=True)
class ConflictSeries:
    """Conflicts over training.

    Attributes:
        env_steps: T distinct steps, (T,).
        share: pairs in conflict over pairs of live tasks, mean over the minibatches of each step, (T,).
        effective_rank: mean over the minibatches of each step, (T,).
        mean_share, mean_rank: the means over all Grams.
        pairs: pairs i < j, the most often in conflict first.
        found: the conflicts in all Grams.
    """

    env_steps: Int[np.ndarray, "T"]
    share: Float[np.ndarray, "T"]
    effective_rank: Float[np.ndarray, "T"]
    mean_share: float
    mean_rank: float
    pairs: list[tuple[int, int]]
    found: Conflicts


def conflict_series(env_steps: Int[np.ndarray, "N"], gram: Float[np.ndarray, "N K K"]) -> ConflictSeries:
    """The conflicts in N Grams over training, from the environment steps at which each Gram was taken."""
    found = conflicts(gram)
    steps = Steps.of(env_steps)
    return ConflictSeries(
        env_steps=steps.env_steps,
        share=steps.mean(found.share),
        effective_rank=steps.mean(found.effective_rank),
        mean_share=float(found.share.mean()),
        mean_rank=float(found.effective_rank.mean()),
        pairs=ranked_pairs(found),
        found=found,
    )


def layer_scores(gram: Float[np.ndarray, "N L K K"], names: Sequence[str], kept: Sequence[int]) -> dict[str, float]:
    """Mean conflict score of each layer, the highest first.

    Args:
        gram: G of every layer of N minibatches.
        names: names of the L layers.
        kept: indices of the tasks to count.
    """
    scores = conflict_score(gram[:, :, kept][:, :, :, kept])
    return {names[n]: float(scores[:, n].mean()) for n in ranked_layers(scores)}

"""Which tasks pull against each other, how often, and in which layers (not in the paper).

A conflict is a negative cosine beyond the noise band. By its sign alone, noise would be in conflict half of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.geometry import (
    conflict_score,
    cosines,
    effective_rank,
    gradient_norms,
    live_pairs,
    mean_abs_cosine,
)
from toppo_diag.analysis.presence import Known, of_pairs, of_some
from toppo_diag.analysis.series import Ranged, Steps
from toppo_diag.analysis.typical import Typical, typical

ROUNDING = 1e-5
"""Least noise band of a cosine. Rounding to fp32 alone can change a cosine by so much (tolerance of the format)."""


@dataclass(frozen=True)
class Conflicts:
    """Conflicts of every two tasks at T steps. Two tasks are in conflict where their mean cosine is below the band.

    Attributes:
        beyond: max(0, -cos - band), (T, K, K); NaN where the pair is never alive together, and on the diagonal.
        share: share of the steps at which a pair is in conflict, (K, K).
        strength: mean over the steps of `beyond`, (K, K).
        cosine: mean cosine over the steps, (K, K).
        noise: half width of the band, median over the steps, (K, K).
        noise_known: whether there are enough Grams to tell noise. If not, the band is that of rounding.
    """

    beyond: Float[np.ndarray, "T K K"]
    share: Float[np.ndarray, "K K"]
    strength: Float[np.ndarray, "K K"]
    cosine: Float[np.ndarray, "K K"]
    noise: Float[np.ndarray, "K K"]
    noise_known: bool

    @property
    def pair_share(self) -> Float[np.ndarray, "T"]:
        """Pairs in conflict over the pairs of live tasks, for each step; NaN without pairs."""
        n = np.isfinite(self.beyond).sum(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(n > 0, (self.beyond > 0).sum(axis=(1, 2)) / n, np.nan))


def conflicts(steps: Steps, cosine: Float[np.ndarray, "N K K"], rounding: float = ROUNDING) -> Conflicts:
    """The conflicts of every two tasks.

    Args:
        steps: of the N Grams.
        cosine: of each Gram, or the part of it that one layer makes; NaN where a pair is not alive together.
        rounding: least half width of the band.
    """
    mean, band = steps.mean(cosine), steps.band(cosine, rounding)
    beyond = _below(mean, band)
    known = np.isfinite(mean)
    n = known.sum(axis=0)

    def over_steps(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(n > 0, np.where(known, values, 0.0).sum(axis=0) / n, np.nan))

    return Conflicts(
        beyond=beyond,
        share=over_steps(beyond > 0),
        strength=over_steps(beyond),
        cosine=over_steps(mean),
        noise=np.where(n > 0, np.median(band, axis=0), np.nan),
        noise_known=steps.noise_known(cosine),
    )


def _below(mean: np.ndarray, band: np.ndarray) -> np.ndarray:
    """How far a mean cosine lies below its noise, max(0, -cos - band)."""
    below: np.ndarray = np.maximum(0.0, -mean - band)
    return below


def pair_cosines(gram: Float[np.ndarray, "N K K"]) -> Float[np.ndarray, "N K K"]:
    """Cosine of every two live tasks; NaN on the diagonal and for a pair that is not alive together."""
    return np.where(live_pairs(gram), cosines(gram), np.nan)


def ranked_pairs(found: Conflicts) -> list[tuple[int, int]]:
    """Pairs i < j that are alive together at some step, the strongest conflict first, then the lower mean cosine."""
    k = len(found.share)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k) if np.isfinite(found.share[i, j])]
    return sorted(pairs, key=lambda p: (-found.strength[p], found.cosine[p]))


@dataclass(frozen=True)
class ConflictSeries:
    """Conflicts over training.

    Attributes:
        env_steps: T distinct steps, (T,).
        share: pairs in conflict over pairs of live tasks, (T,).
        negative: pairs with a negative cosine over pairs of live tasks, by sign alone, mean over the minibatches, (T,).
        effective_rank: of the minibatches of each step, (T,).
        abs_cosine: mean |cos| of the minibatches of each step, (T,).
        mean_share, mean_negative: the means over the steps, that is, shares of all pairs at all steps.
        typical_rank: effective rank, median and range over all Grams.
        mean_abs_cosine: mean |cos|, median and range over all Grams.
        pairs: pairs i < j, the strongest conflict first.
        found: the conflicts of every two tasks.
    """

    env_steps: Int[np.ndarray, "T"]
    share: Float[np.ndarray, "T"]
    negative: Float[np.ndarray, "T"]
    effective_rank: Ranged
    abs_cosine: Ranged
    mean_share: float
    mean_negative: float
    typical_rank: Typical
    mean_abs_cosine: Typical
    pairs: list[tuple[int, int]]
    found: Conflicts

    @property
    def worst(self) -> tuple[int, int] | None:
        """The pair with the strongest conflict; None where no pair is in conflict."""
        return self.pairs[0] if self.pairs and self.found.strength[self.pairs[0]] > 0 else None


def conflict_series(
    env_steps: Int[np.ndarray, "N"],
    gram: Float[np.ndarray, "N K K"],
    rounding: float = ROUNDING,
    known: Known = None,
) -> ConflictSeries:
    """The conflicts in N Grams over training.

    Args:
        env_steps: steps at which each Gram was taken.
        gram: G.
        rounding: least half width of the noise band.
        known: whether each task is known in each Gram; None where all are.
    """
    steps = Steps.of(env_steps)
    found = conflicts(steps, pair_cosines(gram), rounding)
    share = found.pair_share
    negative = steps.mean(of_pairs(conflict_score(gram), gram))
    ranks = of_some(effective_rank(gram), known)
    abs_cosines = of_pairs(mean_abs_cosine(gram), gram)
    return ConflictSeries(
        env_steps=steps.env_steps,
        share=share,
        negative=negative,
        effective_rank=steps.ranged(ranks),
        abs_cosine=steps.ranged(abs_cosines),
        mean_share=_mean(share),
        mean_negative=_mean(negative),
        typical_rank=typical(ranks),
        mean_abs_cosine=typical(abs_cosines),
        pairs=ranked_pairs(found),
        found=found,
    )


@dataclass(frozen=True)
class LayerConflict:
    """The conflicts of one layer (a named tensor) of a side.

    Attributes:
        name: of the layer.
        conflict: how much negative cosine the layer brings to the side, beyond noise, mean over pairs and steps. A
            layer brings G^layer_ij / sqrt(G_ii G_jj). Over the layers these parts sum to the cosine of the side. So a
            layer weighs as much as its part of the gradients' length.
        norm_share: G^layer_ii / G_ii, mean over the tasks and Grams. Over the layers it sums to 1.
        negative: share of the pairs with a negative cosine in the layer, by sign alone (Recon's conflict score).
        reached: indices of the tasks that have a gradient in the layer.
    """

    name: str
    conflict: float
    norm_share: float
    negative: float
    reached: tuple[int, ...]


def layer_conflicts(
    env_steps: Int[np.ndarray, "N"], layers: Mapping[str, Float[np.ndarray, "N K K"]], rounding: float = ROUNDING
) -> list[LayerConflict]:
    """The conflicts of each layer, the strongest first; among equals the one with the larger part of the norm.

    Args:
        env_steps: of the N minibatches.
        layers: G of the columns of each layer, by name. Together they are all columns of the side.
        rounding: least half width of the noise band.
    """
    steps = Steps.of(env_steps)
    lengths = gradient_norms(np.sum(list(layers.values()), axis=0))
    live = lengths > 0
    rows = []
    for name, gram in layers.items():
        strength = conflicts(steps, _part_of_cosines(gram, lengths), rounding).strength
        own = np.diagonal(gram, axis1=1, axis2=2)
        share = np.divide(own, lengths**2, out=np.full_like(own, np.nan), where=live)
        rows.append(
            LayerConflict(
                name,
                _mean(strength),
                _mean(share),
                _mean(of_pairs(conflict_score(gram), gram)),
                tuple(np.flatnonzero((own > 0).any(axis=0)).tolist()),
            )
        )
    return sorted(rows, key=lambda layer: (-layer.conflict, -layer.norm_share))


def layer_conflicts_over_time(
    env_steps: Int[np.ndarray, "N"], layers: Float[np.ndarray, "N L K K"], rounding: float = ROUNDING
) -> Float[np.ndarray, "T L"]:
    """The conflict that each layer brings at each step: how far it takes a cosine below its noise, mean over the pairs.

    Args:
        env_steps: of the N minibatches, with T distinct steps.
        layers: G of the columns of each layer. Together they are all columns of the side.
        rounding: least half width of the noise band.
    """
    steps = Steps.of(env_steps)
    lengths = gradient_norms(layers.sum(axis=1))
    i, j = np.triu_indices(lengths.shape[1], 1)
    found = []
    for gram in layers.swapaxes(0, 1):
        part = _part_of_cosines(gram, lengths)[:, i, j]
        found.append([_mean(below) for below in _below(steps.mean(part), steps.band(part, rounding))])
    return np.array(found).T


def _part_of_cosines(gram: Float[np.ndarray, "N K K"], lengths: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K K"]:
    """What one layer adds to the cosines of the side; NaN on the diagonal and where a task is not alive."""
    product = lengths[:, :, None] * lengths[:, None, :]
    pairs = (product > 0) & ~np.eye(lengths.shape[1], dtype=bool)
    part: np.ndarray = np.divide(gram, product, out=np.full_like(gram, np.nan), where=pairs)
    return part


@dataclass(frozen=True)
class Heads:
    """The layers of a side that one task alone reaches. They lower its cosines, because no other task moves them.

    Attributes:
        layers: names of these layers, by the index of their task.
        norm_share: their part of the squared length of the gradients, mean over the tasks and Grams.
        with_heads: mean |cos| over the pairs of live tasks, median over the Grams.
        without_heads: the same over the other layers; NaN where there is none.
    """

    layers: dict[int, list[str]]
    norm_share: float
    with_heads: float
    without_heads: float

    @property
    def nothing_else(self) -> bool:
        """Whether the side has no other layers."""
        return not np.isfinite(self.without_heads)


def heads(layers: Mapping[str, Float[np.ndarray, "N K K"]], found: Sequence[LayerConflict]) -> Heads | None:
    """The layers that one task alone reaches; None where there is no such layer.

    Args:
        layers: G of the columns of each layer, by name.
        found: `layer_conflicts` of them.
    """
    alone = {layer.name: layer.reached[0] for layer in found if len(layer.reached) == 1}
    shared = [gram for name, gram in layers.items() if name not in alone]
    if not alone or next(iter(layers.values())).shape[-1] < 2:
        return None
    by_task: dict[int, list[str]] = {}
    for name in layers:
        if name in alone:
            by_task.setdefault(alone[name], []).append(name)
    return Heads(
        layers=by_task,
        norm_share=sum(layer.norm_share for layer in found if layer.name in alone),
        with_heads=_median_cosine(list(layers.values())),
        without_heads=_median_cosine(shared) if shared else float("nan"),
    )


def _median_cosine(layers: Sequence[Float[np.ndarray, "N K K"]]) -> float:
    """Mean |cos| over the pairs of live tasks of these layers together, median over the Grams."""
    gram = np.sum(layers, axis=0)
    return typical(of_pairs(mean_abs_cosine(gram), gram)).median


def _mean(values: np.ndarray) -> float:
    """The mean of the numbers that are there; NaN where none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")

"""The numbers that the report's views show of one run. They are those of the figures, at each recorded step.

A number at a step comes from all minibatches that were recorded at this step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import (
    conflict_score,
    contributions,
    cosines,
    direction_shares,
    effective_rank,
    gradient_norms,
    live_pairs,
    mean_abs_cosine,
    spread,
    top_1_mass,
)
from toppo_diag.analysis.conflicts import layer_conflicts_over_time
from toppo_diag.analysis.recorded import Curve, RunRecord, SideRecord
from toppo_diag.analysis.scale import without_popart
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.success import sem
from toppo_diag.analysis.weights import weight_shares

MOST_STEPS = 200
"""Steps of a heatmap's slider. A longer recording is thinned evenly, so that the page stays small."""

RECORDED, RAW = "as trained", "PopArt taken back"
"""The conditions of a side."""


@dataclass(frozen=True)
class Cube:
    """The heatmaps of one side, condition and layer over training.

    Attributes:
        side: the side.
        condition: `RECORDED` or `RAW`.
        layer: the layer; None for the whole side.
        steps: (T,).
        cosines: median over the minibatches of a step of cos(g_i, g_j), i < j, (T, K (K - 1) / 2); NaN for a pair with
            a dead task.
        low, high: range of the same cosines over the minibatches of a step, (T, K (K - 1) / 2); None for a layer.
        norms: mean over the minibatches of a step of ||g_i||, as in Figure 2, (T, K).
    """

    side: str
    condition: str
    layer: str | None
    steps: Int[np.ndarray, "T"]
    cosines: Float[np.ndarray, "T P"]
    low: Float[np.ndarray, "T P"] | None
    high: Float[np.ndarray, "T P"] | None
    norms: Float[np.ndarray, "T K"]


@dataclass(frozen=True)
class Lines:
    """One number for each task over training.

    Attributes:
        view: the view that shows it: norms, contributions, shares, weights or curves.
        side: the side; "" where it is of no side.
        name: what it is.
        steps: (T,).
        values: (T, K).
    """

    view: str
    side: str
    name: str
    steps: Int[np.ndarray, "T"]
    values: Float[np.ndarray, "T K"]


@dataclass(frozen=True)
class Total:
    """One number for all tasks over training.

    Attributes:
        side: the side; "" where it is of no side.
        name: what it is.
        steps: (T,).
        values: (T,).
    """

    side: str
    name: str
    steps: Int[np.ndarray, "T"]
    values: Float[np.ndarray, "T"]


@dataclass(frozen=True)
class LayerMap:
    """Conflict in each layer over training.

    Attributes:
        side: the side.
        names: of the L layers.
        steps: (T,).
        conflict: how far each layer takes a cosine below its noise, mean over the pairs, (T, L).
    """

    side: str
    names: tuple[str, ...]
    steps: Int[np.ndarray, "T"]
    conflict: Float[np.ndarray, "T L"]


@dataclass(frozen=True)
class Overview:
    """Everything that the views show of one run."""

    cubes: tuple[Cube, ...]
    lines: tuple[Lines, ...]
    totals: tuple[Total, ...]
    layers: tuple[LayerMap, ...]


def overview(run: RunRecord, kept: Sequence[int]) -> Overview:
    """The numbers of the views.

    Args:
        run: what the run recorded.
        kept: indices of the tasks to show. Contributions and shares are still those of training on all tasks.
    """
    cubes: list[Cube] = []
    lines: list[Lines] = []
    totals: list[Total] = []
    layers: list[LayerMap] = []
    for side, record in run.sides.items():
        of_kept = record.gram[:, kept][:, :, kept]
        at = Steps.of(record.steps)
        cubes += _cubes(side, record, kept)
        lines.append(
            Lines("norms", side, "gradient norm", at.env_steps, at.mean(_lengths(of_kept, record.present[:, kept])))
        )
        totals += _geometry(side, at, of_kept)
        lines_of_weights, totals_of_weights = _of_weights(side, record, kept)
        lines += lines_of_weights
        totals += totals_of_weights
        if record.layers is not None:
            of_layers = record.layers.values[:, :, kept][:, :, :, kept]
            steps = record.layers.steps
            conflict = layer_conflicts_over_time(steps, of_layers)
            layers.append(LayerMap(side, record.layers.names, Steps.of(steps).env_steps, conflict))
    for curve in run.curves:
        lines.append(Lines("curves", "", curve.name, curve.steps, curve.values[:, kept]))
    if run.success is not None:
        totals.append(_mean_success(run.success, kept))
    return Overview(tuple(cubes), tuple(lines), tuple(totals), tuple(layers))


def _cubes(side: str, record: SideRecord, kept: Sequence[int]) -> list[Cube]:
    made = [_cube(side, RECORDED, None, record.steps, record.gram, record.present, kept)]
    if record.sigma is not None and len(record.at):
        raw = without_popart(record.dumped / record.scale**2, record.sigma)
        made.append(_cube(side, RAW, None, record.at, raw, record.there, kept))
    if record.layers is not None:
        for n, name in enumerate(record.layers.names):
            gram = record.layers.values[:, n]
            reached = gradient_norms(gram) > 0
            made.append(_cube(side, RECORDED, name, record.layers.steps, gram, reached, kept))
    return made


def _cube(
    side: str,
    condition: str,
    layer: str | None,
    steps: Int[np.ndarray, "N"],
    gram: Float[np.ndarray, "N K K"],
    present: Bool[np.ndarray, "N K"],
    kept: Sequence[int],
) -> Cube:
    distinct = np.unique(steps)
    shown = distinct[np.unique(np.linspace(0, len(distinct) - 1, min(MOST_STEPS, len(distinct))).round().astype(int))]
    within = np.isin(steps, shown)
    steps, gram, present = steps[within], gram[within][:, kept][:, :, kept], present[within][:, kept]
    i, j = np.triu_indices(gram.shape[-1], 1)
    cosine = np.where(live_pairs(gram), cosines(gram), np.nan)[:, i, j]
    at = Steps.of(steps)
    low, high = (None, None) if layer is not None else at.range(cosine)
    norms = at.mean(_lengths(gram, present))
    return Cube(side, condition, layer, at.env_steps, at.median(cosine), low, high, norms)


def _lengths(gram: Float[np.ndarray, "N K K"], present: Bool[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """||g_i|| of the tasks that took part; NaN for the others."""
    return np.where(present, gradient_norms(gram), np.nan)


def _geometry(side: str, at: Steps, gram: Float[np.ndarray, "N K K"]) -> list[Total]:
    """Medians of spread and mean |cos| at each step, and the two measures of `conflicts`, which are means."""
    return [
        Total(side, "spread of gradient norms", at.env_steps, at.median(spread(gradient_norms(gram)))),
        Total(side, "mean |cos|", at.env_steps, at.median(mean_abs_cosine(gram))),
        Total(side, "effective rank", at.env_steps, at.mean(effective_rank(gram))),
        Total(side, "negative pairs", at.env_steps, at.mean(conflict_score(gram))),
    ]


def _of_weights(side: str, record: SideRecord, kept: Sequence[int]) -> tuple[list[Lines], list[Total]]:
    """What training's weights made of the dumped minibatches; of a plain sum where they were not recorded."""
    if not len(record.at):
        return [], []
    assumed = record.weights is None
    w = make("sum").solve_many(record.dumped).weights if record.weights is None else record.weights
    at = Steps.of(record.at)
    of_sum = " of a plain sum" * assumed
    contributed = contributions(record.dumped, w)
    shares = np.where(record.there, direction_shares(record.dumped, w), np.nan)
    lines = [
        Lines(
            "contributions",
            side,
            f"contribution{of_sum}",
            at.env_steps,
            at.mean(np.where(record.there, contributed, np.nan))[:, kept],
        ),
        Lines("shares", side, f"share of the direction{of_sum}", at.env_steps, at.median(shares)[:, kept]),
    ]
    if not assumed:
        lines.append(Lines("weights", side, "share of the weights", at.env_steps, at.mean(weight_shares(w))[:, kept]))
    totals = [
        Total(side, f"top-1 mass{of_sum}", at.env_steps, at.median(top_1_mass(record.dumped, w))),
        Total(side, f"spread of contributions{of_sum}", at.env_steps, at.median(spread(contributed))),
    ]
    return lines, totals


def _mean_success(success: Curve, kept: Sequence[int]) -> Total:
    values = success.values[:, kept]
    known = np.isfinite(values)
    mean = np.where(
        known.any(axis=1), np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.nan
    )
    return Total("", f"mean {success.name}", success.steps, mean)


@dataclass(frozen=True)
class SeedTotal:
    """One number for all tasks over training, of several seeds of one configuration.

    Attributes:
        side, name: as in `Total`.
        steps: those that all seeds have, (T,).
        mean: over the seeds, (T,).
        sem: standard error of the mean, (T,).
    """

    side: str
    name: str
    steps: Int[np.ndarray, "T"]
    mean: Float[np.ndarray, "T"]
    sem: Float[np.ndarray, "T"]


def seed_totals(of_seeds: Sequence[Sequence[Total]]) -> list[SeedTotal]:
    """Mean and standard error of every number that all seeds have, at the steps that all have."""
    made = []
    for total in of_seeds[0]:
        same = [next((t for t in seed if (t.side, t.name) == (total.side, total.name)), None) for seed in of_seeds]
        present = [t for t in same if t is not None]
        steps = reduce(np.intersect1d, [t.steps for t in present])
        if len(present) < len(of_seeds) or not len(steps):
            continue
        values = np.stack([t.values[np.searchsorted(t.steps, steps)] for t in present], axis=-1)
        made.append(SeedTotal(total.side, total.name, steps, values.mean(axis=-1), sem(values)))
    return made

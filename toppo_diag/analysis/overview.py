"""The numbers that the report's views show of one run. They are those of the figures, at each recorded step.

A number at a step comes from all minibatches that were recorded at this step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners.geometry import conflict_score, effective_rank, gradient_norms, mean_abs_cosine, spread
from toppo_diag.analysis.budget import MOST_BYTES, MOST_STEPS, Fit, fit
from toppo_diag.analysis.conflicts import layer_conflicts_over_time, pair_cosines
from toppo_diag.analysis.direction import Direction
from toppo_diag.analysis.presence import of_pairs, of_some
from toppo_diag.analysis.recorded import Curve, RunRecord, SideRecord
from toppo_diag.analysis.scale import without_popart
from toppo_diag.analysis.series import Steps, spread_evenly
from toppo_diag.analysis.success import sem

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
        norms: ||g_i||, median over the minibatches of a step, as in Figure 2, (T, K).
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
    """Everything that the views show of one run.

    Attributes:
        cubes: the heatmaps.
        lines: one number for each task.
        totals: one number for all tasks.
        layers: conflict in each layer.
        left_out: what the heatmaps leave out to fit their budget, one line each.
    """

    cubes: tuple[Cube, ...]
    lines: tuple[Lines, ...]
    totals: tuple[Total, ...]
    layers: tuple[LayerMap, ...]
    left_out: tuple[str, ...] = ()


def overview(run: RunRecord, kept: Sequence[int], most: float = MOST_BYTES) -> Overview:
    """The numbers of the views.

    Args:
        run: what the run recorded.
        kept: indices of the tasks to show. Contributions and shares are still those of training on all tasks.
        most: bytes of the page that the heatmaps may take together.
    """
    sources: list[_Source] = []
    lines: list[Lines] = []
    totals: list[Total] = []
    layers: list[LayerMap] = []
    for side, record in run.sides.items():
        if len(record.steps):
            of_kept, present = record.gram[:, kept][:, :, kept], record.present[:, kept]
            at = Steps.of(record.steps)
            lines.append(Lines("norms", side, "gradient norm", at.env_steps, at.median(_lengths(of_kept, present))))
            totals += _geometry(side, at, of_kept, present)
        lines_of_weights, totals_of_weights = _of_weights(side, record, kept)
        lines += lines_of_weights
        totals += totals_of_weights
        if record.layers is not None:
            of_layers = record.layers.values[:, :, kept][:, :, :, kept]
            steps = record.layers.steps
            conflict = layer_conflicts_over_time(steps, of_layers)
            layers.append(LayerMap(side, record.layers.names, Steps.of(steps).env_steps, conflict))
        sources += _sources(side, record, layers[-1] if record.layers is not None else None)
    for curve in run.curves:
        lines.append(Lines("curves", "", curve.name, curve.steps, curve.values[:, kept]))
    if run.success is not None:
        totals.append(_mean_success(run.success, kept))
    chosen = fit([source.fit(len(kept)) for source in sources], most)
    cubes = tuple(_cube(sources[n], chosen.most_steps, kept) for n in chosen.kept)
    return Overview(cubes, tuple(lines), tuple(totals), tuple(layers), _left_out(sources, cubes, chosen.kept))


@dataclass(frozen=True)
class _Source:
    """The Grams behind one `Cube`, and how much conflict its layer brings; infinite for a whole side."""

    side: str
    condition: str
    layer: str | None
    steps: Int[np.ndarray, "N"]
    gram: Float[np.ndarray, "N K K"]
    present: Bool[np.ndarray, "N K"]
    conflict: float = float("inf")

    def fit(self, n_tasks: int) -> Fit:
        """What the cube would take of the page."""
        pairs = n_tasks * (n_tasks - 1) // 2
        ranges = 0 if self.layer is not None else 2 * 2 * pairs
        return Fit(len(np.unique(self.steps)), 4 * (pairs + n_tasks) + ranges, self.conflict)


def _sources(side: str, record: SideRecord, layers: LayerMap | None) -> list[_Source]:
    made = []
    if len(record.steps):
        made.append(_Source(side, RECORDED, None, record.steps, record.gram, record.present))
    if record.sigma is not None and len(record.at):
        raw = without_popart(record.dumped / record.scale**2, record.sigma)
        made.append(_Source(side, RAW, None, record.at, raw, record.there))
    if record.layers is not None and layers is not None:
        known = np.isfinite(layers.conflict)
        brought = np.where(known, layers.conflict, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        for n, name in enumerate(record.layers.names):
            gram = record.layers.values[:, n]
            reached = gradient_norms(gram) > 0
            made.append(_Source(side, RECORDED, name, record.layers.steps, gram, reached, float(brought[n])))
    return made


def _left_out(sources: Sequence[_Source], cubes: Sequence[Cube], kept: Sequence[int]) -> tuple[str, ...]:
    """What the budget leaves out: steps of the slider, and layers."""
    notes = []
    thinned = [
        (len(cube.steps), held)
        for cube, n in zip(cubes, kept, strict=True)
        if len(cube.steps) < min(MOST_STEPS, held := len(np.unique(sources[n].steps)))
    ]
    if thinned:
        shown, held = max(thinned, key=lambda both: both[1])
        notes.append(f"So that the page stays small, the slider of the heatmaps has {shown} of {held} steps.")
    for side in dict.fromkeys(source.side for source in sources):
        of_side = [n for n, source in enumerate(sources) if source.side == side and source.layer is not None]
        shown = sum(n in kept for n in of_side)
        if shown < len(of_side):
            notes.append(
                f"So that the page stays small, the heatmaps show {shown} of the {len(of_side)} layers of the {side}: "
                "those that bring the most conflict."
            )
    return tuple(notes)


def _cube(source: _Source, most_steps: int, kept: Sequence[int]) -> Cube:
    distinct = np.unique(source.steps)
    within = np.isin(source.steps, distinct[spread_evenly(len(distinct), most_steps)])
    gram, present = source.gram[within][:, kept][:, :, kept], source.present[within][:, kept]
    i, j = np.triu_indices(gram.shape[-1], 1)
    cosine = pair_cosines(gram)[:, i, j]
    at = Steps.of(source.steps[within])
    around = at.ranged(cosine)
    low, high = (None, None) if source.layer is not None else (around.low, around.high)
    norms = at.median(_lengths(gram, present))
    return Cube(source.side, source.condition, source.layer, at.env_steps, around.median, low, high, norms)


def _lengths(gram: Float[np.ndarray, "N K K"], present: Bool[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """||g_i|| of the tasks that took part; NaN for the others."""
    return np.where(present, gradient_norms(gram), np.nan)


def _geometry(side: str, at: Steps, gram: Float[np.ndarray, "N K K"], present: Bool[np.ndarray, "N K"]) -> list[Total]:
    """The measures of a Gram at each step: medians, and the share of negative pairs, which is a mean."""
    apart, cosine, negative = (
        of_pairs(values, gram) for values in (spread(gradient_norms(gram)), mean_abs_cosine(gram), conflict_score(gram))
    )
    return [
        Total(side, "spread of gradient norms", at.env_steps, at.median(apart)),
        Total(side, "mean |cos|", at.env_steps, at.median(cosine)),
        Total(side, "effective rank", at.env_steps, at.median(of_some(effective_rank(gram), present))),
        Total(side, "negative pairs", at.env_steps, at.mean(negative)),
    ]


def _of_weights(side: str, record: SideRecord, kept: Sequence[int]) -> tuple[list[Lines], list[Total]]:
    """What training's weights made of the dumped minibatches; of a plain sum where they were not recorded."""
    step = Direction.of(record)
    if not len(step.steps):
        return [], []
    at = Steps.of(step.steps)
    of_sum = " of a plain sum" * step.assumed
    contributed, shares = at.median(step.contributions)[:, kept], at.median(step.shares)[:, kept]
    lines = [
        Lines("contributions", side, f"contribution{of_sum}", at.env_steps, contributed),
        Lines("shares", side, f"share of the direction{of_sum}", at.env_steps, shares),
    ]
    if not step.assumed:
        lines.append(
            Lines("weights", side, "share of the weights", at.env_steps, at.median(step.weight_shares)[:, kept])
        )
    totals = [
        Total(side, f"top-1 mass{of_sum}", at.env_steps, at.median(step.top_1)),
        Total(side, f"spread of contributions{of_sum}", at.env_steps, at.median(step.spread)),
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

"""Conflicts between tasks over training, by pair of tasks and by layer (not in the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toppo_diag.analysis.conflicts import ConflictSeries, LayerConflict
from toppo_diag.plots.names import short, shortened
from toppo_diag.plots.style import (
    DEAD,
    PAGE_WIDTH,
    STEPS,
    Target,
    dots,
    dress,
    fix_ticks,
    mark_lost,
    name_length,
    name_size,
    paper_style,
    sheet,
    size_inches,
    steps_axis,
    whole,
)

SIDE_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_BY_SIGN: dict[str, Any] = {"linewidth": 0.5, "linestyle": "--"}
_BROUGHT = "conflict that a layer brings"
_PAIR_MAP = "Blues"
"""Colour map of how often a pair is in conflict, from white (never) to dark blue (always)."""
MOST_LAYERS = 15
"""The most layers that a picture shows: those with the strongest conflict."""


@paper_style()
def conflicts_figure(
    series: Mapping[str, ConflictSeries],
    layers: Mapping[str, Sequence[LayerConflict]],
    tasks: Sequence[str],
    *,
    axis: str = STEPS,
    figure: Target | None = None,
) -> Figure:
    """The Figure with the share of pairs in conflict and the effective rank over training, one line per side.

    A pair is in conflict where its cosine is negative beyond noise. A thin line shows the share of negative cosines by
    sign alone. Below stands, for each side, how often a pair of tasks is in conflict. The last row ranks the layers by
    the conflict that they bring, where there are any.

    Args:
        series: conflicts over training, by side (named group of shared parameters).
        layers: the layers of each side, the strongest conflict first. A side without Grams of layers is missing.
        tasks: K names.
        axis: label of the steps.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    k = len(tasks)
    beside = (
        2 if k <= 15 and len(series) > 1 else 1
    )  # number of grids in a row: the names of many tasks need the page's width
    n_rows = -(-len(series) // beside)
    grid_height = (2.0 if k <= 15 else 0.075 * k) + name_length(tasks) + 0.3
    layers = {side: found for side, found in layers.items() if _drawn(found)}
    deepest = max((len(_drawn(found)) for found in layers.values()), default=0)
    alone = len(series) == 1 and k <= 15  # its grid stands beside the two curves, which are above each other
    above = [max(grid_height, 2.6)] if alone else [1.7, n_rows * grid_height]
    heights = [*above, *([0.13 * deepest + 0.6] if deepest else [])]
    target = sheet(figure, PAGE_WIDTH, sum(heights))
    break_ = " " if size_inches(target)[0] > 0.8 * PAGE_WIDTH else "\n"  # titles side by side
    rows = list(target.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])

    colours = dict(zip(series, cycle(SIDE_COLOURS), strict=False))
    left, right = rows[0].subfigures(1, 2) if alone else rows[:2]
    share, rank = (dress(ax) for ax in left.subplots(*((2, 1) if alone else (1, 2))))
    for side, s in series.items():
        how: dict[str, Any] = {"color": colours[side], **dots(s.share)}
        share.plot(s.env_steps, s.share, **how, label=side, gid=side)
        by_sign = {"color": colours[side], **_BY_SIGN, "gid": f"{side} by sign"}
        share.plot(s.env_steps, s.negative, **by_sign)
        rank.plot(s.env_steps, s.effective_rank.median, **how, label=side, gid=side)
    share.plot([], [], color="0.4", **_BY_SIGN, label="cos < 0, by sign alone")
    share.set(
        ylabel="share of pairs\nin conflict",
        ylim=(0, 1.5 * max(0.01, share.dataLim.y1 if np.isfinite(share.dataLim.y1) else 0.0)),
    )
    rank.set(ylabel=f"effective rank\nof cosines (of {k})", ylim=(0, k * 1.05))
    share.legend(loc="upper right", ncols=2)
    first = next(iter(series.values()))
    for ax, values in ((share, first.share), (rank, first.effective_rank.median)):
        mark_lost(ax, first.env_steps, values)
    for ax in (share, rank):
        steps_axis(ax, axis)

    grids: list[Axes] = list(right.subplots(n_rows, beside, squeeze=False).flat)
    for ax in grids[len(series) :]:
        ax.set_axis_off()
    most = _scale_end([s.found.share for s in series.values()])
    for n, (ax, (side, s)) in enumerate(zip(grids, series.items(), strict=False)):
        draw_pairs(ax, s.found.share, tasks, most=most)
        if n % beside:
            ax.set_yticks(range(k), [])
        ax.set_title(f"{side}: how often{break_}a pair is in conflict")
    bar = right.colorbar(grids[0].images[0], ax=grids, shrink=0.8 / n_rows, pad=0.04)
    bar.set_label("share of snapshots")
    fix_ticks(bar.ax)

    if deepest:
        bars = rows[-1].subplots(1, len(layers), squeeze=False)[0]
        for ax, (side, scores) in zip(bars, layers.items(), strict=True):
            draw_layers(ax, scores, colours[side])
            ax.set_xlabel(f"{side}: {_BROUGHT}")
    return whole(target)


@paper_style()
def draw_pairs(ax: Axes, share: Float[np.ndarray, "K K"], tasks: Sequence[str], *, most: float | None = None) -> Axes:
    """The given axes, with a heatmap of how often each pair of tasks is in conflict. Pairs without a number are grey.

    `ax.figure.colorbar(ax.images[0], ax=ax)` adds a colour bar.

    Args:
        ax: to draw on.
        share: share of the snapshots, `share` of `toppo_diag.analysis.conflicts.conflicts`.
        tasks: K names.
        most: the share at the end of the colour map; by default the largest, rounded up to a tenth.
    """
    most = _scale_end([share]) if most is None else most
    size = name_size(len(tasks))
    dress(ax).set_facecolor(DEAD)
    ax.imshow(np.ma.masked_invalid(share), cmap=_PAIR_MAP, vmin=0, vmax=most, interpolation="nearest")
    ax.set_xticks(range(len(tasks)), [short(t) for t in tasks], rotation=90, fontsize=size)
    ax.set_yticks(range(len(tasks)), [short(t) for t in tasks], fontsize=size)
    return ax


@paper_style()
def draw_layers(ax: Axes, layers: Sequence[LayerConflict], colour: str = SIDE_COLOURS[0]) -> Axes:
    """The given axes, with one bar per layer for the conflict that it brings, and its part of the squared norm.

    Args:
        ax: to draw on.
        layers: the strongest conflict first. The first `MOST_LAYERS` that several tasks reach are drawn.
        colour: of the bars.
    """
    drawn = _drawn(layers)
    lengths = [layer.conflict if np.isfinite(layer.conflict) else 0.0 for layer in drawn]
    dress(ax).barh(range(len(drawn)), lengths, color=colour, height=0.7)
    ax.set_yticks(range(len(drawn)), [shortened(layer.name) for layer in drawn])
    ax.invert_yaxis()
    most = max(lengths, default=0.0)
    ax.set_xlim(0, 1.3 * most if most > 0 else 1)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    for y, layer in enumerate(drawn):
        text = f"{_percent(layer.norm_share)} of norm\u00b2" if y == 0 else _percent(layer.norm_share)
        ax.annotate(text, (lengths[y], y), (2, 0), textcoords="offset points", va="center", fontsize=5)
    if most <= 0:
        ax.set_xticks([])
        ax.annotate("no layer is in conflict beyond noise", (0.97, 0.03), xycoords="axes fraction", ha="right")
    if len(layers) > len(drawn):
        alone = sum(len(layer.reached) == 1 for layer in layers)
        why = f"; one task alone reaches {alone}" if alone else ""
        ax.set_title(f"{len(drawn)} of {len(layers)} layers{why}", fontsize=6)
    ax.set_xlabel(_BROUGHT)
    return ax


def _scale_end(shares: Sequence[Float[np.ndarray, "K K"]]) -> float:
    """The largest of some shares, rounded up to a tenth. Conflicts beyond noise are rare: a map up to 1 is blank."""
    largest = max((float(np.nanmax(share)) for share in shares if np.isfinite(share).any()), default=0.0)
    return max(0.1, math.ceil(10 * largest - 1e-9) / 10)


def _drawn(layers: Sequence[LayerConflict]) -> list[LayerConflict]:
    """The layers that a picture shows. A layer that one task alone reaches is in no conflict."""
    return [layer for layer in layers if len(layer.reached) != 1][:MOST_LAYERS]


def _percent(share: float) -> str:
    """A share as text: 12%, 0.3%, <0.1%."""
    if not share > 0:
        return "0%"
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"

"""Conflicts between tasks over training, by pair of tasks and by layer (not in the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import (
    DEAD,
    PAGE_WIDTH,
    Target,
    dress,
    fix_ticks,
    marker,
    name_length,
    name_size,
    paper_style,
    sheet,
    size_inches,
    steps_axis,
    whole,
)

SIDE_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_PAIR_MAP = "RdBu"
"""Colour map of how often a pair is in conflict, centred at half of the time: blue is more often, as for cosines."""


@paper_style()
def conflicts_figure(
    series: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    pairs: Mapping[str, Float[np.ndarray, "K K"]],
    layers: Mapping[str, Sequence[tuple[str, float]]],
    tasks: Sequence[str],
    *,
    figure: Target | None = None,
) -> Figure:
    """The Figure with the share of negative pairs and the effective rank over training, one line per side.

    Below stands, for each side, how often a pair of tasks is in conflict. The last row ranks the layers by their
    conflict score, where there are any.

    Args:
        series: environment steps, share of negative pairs and effective rank, by side (named group of shared
            parameters).
        pairs: share of the Grams in which a pair is in conflict, by side; NaN for a pair never alive together.
        layers: name and score of each layer, highest first, by side. A side whose dump has no slabs (the per-task
            gradients J) is missing.
        tasks: K names.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    k = len(tasks)
    beside = (
        2 if k <= 15 and len(pairs) > 1 else 1
    )  # number of grids in a row: the names of many tasks need the page's width
    n_rows = -(-len(pairs) // beside)
    grid_height = (2.0 if k <= 15 else 0.075 * k) + name_length(tasks) + 0.3
    deepest = max((len(found) for found in layers.values()), default=0)
    alone = len(pairs) == 1 and k <= 15  # its grid stands beside the two curves, which are above each other
    above = [max(grid_height, 2.6)] if alone else [1.6, n_rows * grid_height]
    heights = [*above, *([0.13 * deepest + 0.5] if deepest else [])]
    target = sheet(figure, PAGE_WIDTH, sum(heights))
    break_ = " " if size_inches(target)[0] > 0.8 * PAGE_WIDTH else "\n"  # titles side by side
    rows = list(target.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])

    colours = dict(zip(series, cycle(SIDE_COLOURS), strict=False))
    left, right = rows[0].subfigures(1, 2) if alone else rows[:2]
    share, rank = (dress(ax) for ax in left.subplots(*((2, 1) if alone else (1, 2))))
    for side, (steps, negative, effective) in series.items():
        how = {"color": colours[side], **marker(len(steps)), "label": side, "gid": side}
        share.plot(steps, negative, **how)
        rank.plot(steps, effective, **how)
    share.set(ylabel="share of pairs\nwith cos < 0", ylim=(0, 1.15 * max(0.01, share.dataLim.y1)))
    rank.set(ylabel=f"effective rank\nof cosines (of {k})", ylim=(0, k * 1.05))
    share.legend()
    for ax in (share, rank):
        steps_axis(ax)

    grids: list[Axes] = list(right.subplots(n_rows, beside, squeeze=False).flat)
    for ax in grids[len(pairs) :]:
        ax.set_axis_off()
    for n, (ax, (side, found)) in enumerate(zip(grids, pairs.items(), strict=False)):
        draw_pairs(ax, found, tasks)
        if n % beside:
            ax.set_yticks(range(k), [])
        ax.set_title(f"{side}: how often{break_}a pair is in conflict")
    bar = right.colorbar(grids[0].images[0], ax=grids, shrink=0.8 / n_rows, pad=0.01)
    bar.set_label("share of minibatches")
    fix_ticks(bar.ax)

    if deepest:
        bars = rows[-1].subplots(1, len(pairs), squeeze=False)[0]
        for ax in bars[len(layers) :]:
            ax.set_axis_off()
        for ax, (side, scores) in zip(bars, layers.items(), strict=False):
            draw_layers(ax, scores, colours[side])
            ax.set_xlabel(f"{side}: conflict score of a layer")
    return whole(target)


@paper_style()
def draw_pairs(ax: Axes, share: Float[np.ndarray, "K K"], tasks: Sequence[str]) -> Axes:
    """The given axes, with a heatmap of how often each pair of tasks is in conflict. Pairs without a number are grey.

    `ax.figure.colorbar(ax.images[0], ax=ax)` adds a colour bar.

    Args:
        ax: to draw on.
        share: `pair_share` of `toppo_diag.analysis.conflicts.conflicts`.
        tasks: K names.
    """
    size = name_size(len(tasks))
    dress(ax).set_facecolor(DEAD)
    ax.imshow(np.ma.masked_invalid(share), cmap=_PAIR_MAP, vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks(range(len(tasks)), [short(t) for t in tasks], rotation=90, fontsize=size)
    ax.set_yticks(range(len(tasks)), [short(t) for t in tasks], fontsize=size)
    return ax


@paper_style()
def draw_layers(ax: Axes, scores: Sequence[tuple[str, float]], colour: str = SIDE_COLOURS[0]) -> Axes:
    """The given axes, with one bar per layer for its conflict score, from top to bottom.

    Args:
        ax: to draw on.
        scores: name and score of each layer.
        colour: of the bars.
    """
    dress(ax).barh(range(len(scores)), [score for _, score in scores], color=colour, height=0.7)
    ax.set_yticks(range(len(scores)), [name for name, _ in scores])
    ax.invert_yaxis()
    ax.set_xlabel("conflict score of a layer")
    return ax

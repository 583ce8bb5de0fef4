"""Gram heatmaps (Figures 3, D.1 and D.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toppo_diag.analysis.heatmap import Panel
from toppo_diag.plots.names import short
from toppo_diag.plots.style import COSINE_MAP, DEAD, MAGNITUDE_MAP, PAGE_WIDTH, times

_WIDEST = 1.6
"""Inches of one K x K grid, at most, where its labels allow it."""


def heatmap_figure(
    panels: Mapping[tuple[str, str], Panel], rows: Mapping[str, str], columns: Sequence[str], side: str
) -> Figure:
    """Heatmaps of Grams, stages as rows and conditions as columns.

    Off the diagonal: cosines; on it: log10 G_ii; above: ||g_i|| / K on a log scale with the spread max / min; dead
    tasks are grey.

    Args:
        panels: by (row, column); missing cells stay empty.
        rows: stages, and how to label them.
        columns: conditions.
        side: "actor" or "critic", for the labels.
    """
    k = len(next(iter(panels.values())).tasks)
    tasks = next(iter(panels.values())).tasks
    names = max(len(short(t)) for t in tasks) * (0.05 if k <= 15 else 0.038)
    left, bottom, right, gap, bar, head = names + 0.35, 0.9 * names + 0.1, 0.75, 0.2, 0.38, 0.3
    room = (PAGE_WIDTH - left - right - (len(columns) - 1) * gap) / len(columns)
    cell = max(min(room, _WIDEST), 0.075 * k)  # a page wide, unless the labels of many tasks need more
    width = left + len(columns) * cell + (len(columns) - 1) * gap + right
    height = head + len(rows) * (cell + bar + gap) + bottom
    figure = Figure(figsize=(width, height))
    diagonal = _range([p.log10_square for p in panels.values()])
    shares = _range([np.log10(p.share, where=p.share > 0, out=np.full(k, -np.inf)) for p in panels.values()])

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    for r, (row, label) in enumerate(rows.items()):
        y = height - head - (r + 1) * (cell + bar) - r * gap
        for c, column in enumerate(columns):
            panel = panels.get((row, column))
            if panel is None:
                continue
            x = left + c * (cell + gap)
            grid, bars = axes(x, y, cell, cell), axes(x, y + cell + 0.03, cell, bar - 0.06)
            _draw_grid(grid, panel, diagonal)
            _draw_bars(bars, panel, shares)
            bars.set_yticks([]) if c else bars.set_ylabel(
                r"$\Vert g_i\Vert/K$", rotation=0, ha="right", va="center", fontsize=6
            )
            if r == 0:
                bars.set_title(column, pad=3)
            grid.set_yticks(range(k), [short(t) for t in panel.tasks] if c == 0 else [])
            grid.set_xticks(range(k), [short(t) for t in panel.tasks] if r == len(rows) - 1 else [], rotation=90)
            size = 6 if k <= 15 else 4.5
            grid.tick_params(labelsize=size, length=1.5, pad=1)
            if c == 0:
                figure.text(0.01, (y + cell / 2) / height, label, rotation=90, va="center", ha="left", fontsize=7.5)
    _colour_bars(axes, width, height, bottom, right, diagonal, side)
    return figure


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _draw_grid(ax: Axes, panel: Panel, diagonal: tuple[float, float]) -> None:
    k = len(panel.tasks)
    dead = ~np.isfinite(panel.log10_square)
    off = np.ma.masked_where(np.eye(k, dtype=bool) | dead[:, None] | dead[None, :], panel.cosine)
    ax.set_facecolor(DEAD)
    ax.imshow(off, cmap=COSINE_MAP, vmin=-1, vmax=1, interpolation="nearest")
    on = np.ma.masked_array(np.zeros((k, k)), mask=True)
    live = np.flatnonzero(~dead)
    on[live, live] = panel.log10_square[live]
    ax.imshow(on, cmap=MAGNITUDE_MAP, vmin=diagonal[0], vmax=diagonal[1], interpolation="nearest")


def _draw_bars(ax: Axes, panel: Panel, shares: tuple[float, float]) -> None:
    k = len(panel.tasks)
    live = panel.share > 0
    floor = 10 ** (shares[0] - 0.3)
    ax.bar(np.arange(k)[live], panel.share[live] - floor, bottom=floor, color="0.35", width=0.8)
    ax.set_yscale("log")
    ax.set_ylim(floor, floor * (10 ** shares[1] / floor) ** 1.6)  # room for the badge
    ax.set_xlim(-0.5, k - 0.5)
    ax.set_xticks([])
    ax.tick_params(labelsize=5, length=1.5, pad=1)
    ax.minorticks_off()
    for edge in ("top", "right"):
        ax.spines[edge].set_visible(False)
    ax.text(0.98, 0.97, times(panel.spread), transform=ax.transAxes, ha="right", va="top", fontsize=6)


def _colour_bars(
    axes: Callable[[float, float, float, float], Axes],
    width: float,
    height: float,
    bottom: float,
    right: float,
    diagonal: tuple[float, float],
    side: str,
) -> None:
    x = width - right + 0.12
    length = min((height - bottom) * 0.42, 1.5)
    for i, (mapping, label) in enumerate(
        (
            (ScalarMappable(Normalize(-1, 1), COSINE_MAP), rf"$\cos(g_i, g_j)$, {side}"),
            (ScalarMappable(Normalize(*diagonal), MAGNITUDE_MAP), r"diagonal: $\log_{10} G_{ii}$"),
        )
    ):
        ax = axes(x, bottom + i * (length + 0.2), 0.09, length)
        bar = ax.figure.colorbar(mapping, cax=ax)
        bar.locator = MaxNLocator(4, steps=[1, 2, 5, 10])
        bar.update_ticks()
        bar.set_label(label, fontsize=6, labelpad=2)
        bar.ax.tick_params(labelsize=5.5, length=1.5, pad=1)

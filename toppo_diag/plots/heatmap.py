"""Heatmaps of Grams G = J J' (Figures 3, D.1 and D.2)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toppo_diag.analysis.heatmap import Panel
from toppo_diag.plots.names import short
from toppo_diag.plots.style import (
    COSINE_MAP,
    DEAD,
    LOST,
    MAGNITUDE_MAP,
    PAGE_WIDTH,
    Target,
    dress,
    fix_ticks,
    name_length,
    name_size,
    paper_style,
    size_inches,
    spread_range,
    times,
    whole,
)

_WIDEST = 1.6
"""Largest width of one K x K grid in a figure of its own, in inches. The names of many tasks may need more."""
_LEAST_PER_TASK = 0.075
"""Least inches per task of a grid's width in a figure of its own. With it, the names of 50 tasks just fit."""
_LINE = 1 / 60
"""Height of a line of text in inches, per point of its font size."""
_LEAST = 0.4
"""Least width of a grid, in inches."""
_NOTE = 5.5
"""Font size of the line below the picture, in points."""
_RIGHT, _GAP, _BAR, _HEAD = 0.75, 0.2, 0.6, 0.3
"""Space in inches for the colour bars, between grids, for dots and badge above a grid, and for the titles."""
_BADGE = 5.5
"""Largest font size of a badge, in points."""

Range = tuple[float, float]


@paper_style()
def heatmap_figure(
    panels: Mapping[tuple[str, str], Panel],
    rows: Mapping[str, str],
    columns: Sequence[str],
    side: str,
    *,
    minibatch: int | None = None,
    figure: Target | None = None,
) -> Figure:
    """The Figure with one heatmap for each stage (rows) and condition (columns).

    Cosines stand off the diagonal, and log10 G_ii on the diagonal. The dots above show ||g_i|| / K on a log scale. The
    numbers above them are the spread, max / min, and the mean |cos|. If a panel stands for several minibatches, they
    are medians, with their ranges, and a line below the picture says so. Dead tasks are grey. In a given figure the
    grids take all the space. If names would touch, the whole picture shrinks with its fonts.

    Args:
        panels: by row and column. Missing cells stay empty.
        rows: labels by stage.
        columns: conditions.
        side: named group of shared parameters, such as "critic", for the labels.
        minibatch: the minibatch of each snapshot that was asked for; None where the panels stand for all.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    tasks = next(iter(panels.values())).tasks
    k = len(tasks)
    note = _note(max(panel.spread.n for panel in panels.values()), minibatch)
    at = _place(tasks, len(rows), len(columns), None if figure is None else size_inches(figure), note)
    target = Figure(figsize=at.space) if figure is None else figure
    diagonal, shares = _diagonal_range(panels.values()), _share_range(panels.values())
    badge = _LINE * _BADGE * max(_badge(panel).count("\n") + 1 for panel in panels.values())
    lowest = {column: max(r for r, row in enumerate(rows) if (row, column) in panels) for _, column in panels}
    for r, (row, label) in enumerate(rows.items()):
        first = min(c for c, column in enumerate(columns) if (row, column) in panels)
        y = at.height - _HEAD - (r + 1) * (at.cell + _BAR) - r * _GAP
        for c, column in enumerate(columns):
            panel = panels.get((row, column))
            if panel is None:
                continue
            x = at.left + c * (at.cell + _GAP)
            grid = dress(target.add_axes(at.box(x, y, at.cell, at.cell)))
            dots = dress(target.add_axes(at.box(x, y + at.cell + 0.03, at.cell, _BAR - badge - 0.06)))
            # A title of the whole figure may squeeze a subfigure later on. The grid then stays as wide as its dots.
            _draw_grid(grid, panel, diagonal, "equal" if figure is None else "auto")
            _draw_dots(dots, panel, shares, at.scale, at.cell)
            dots.set_yticks([]) if c != first else dots.set_ylabel(
                r"$\Vert g_i\Vert/K$", rotation=0, ha="right", va="center", fontsize=6 * at.scale
            )
            if r == 0:
                title, size = _title(column, at.cell + _GAP)
                middle, top, _, _ = at.box(x + at.cell / 2, y + at.cell + _BAR + 0.02, 0, 0)
                target.text(middle, top, title, ha="center", va="bottom", fontsize=size * at.scale, gid="column")
            grid.set_yticks(range(k), [short(t) for t in panel.tasks] if c == first else [])
            grid.set_xticks(range(k), [short(t) for t in panel.tasks] if r == lowest[column] else [], rotation=90)
            grid.tick_params(labelsize=name_size(k) * at.scale, length=1.5, pad=1)
            if c == first:
                left, middle, _, _ = at.box(0.01 * at.width, y + at.cell / 2, 0, 0)
                target.text(left, middle, label, rotation=90, va="center", ha="left", fontsize=7.5 * at.scale)
    _colour_bars(target, at, diagonal, side)
    if at.note:
        middle, foot, _, _ = at.box(at.width / 2, 0.02, 0, 0)
        target.text(middle, foot, at.note, ha="center", va="bottom", fontsize=_NOTE * at.scale, color="0.3")
    return whole(target)


@paper_style()
def draw_gram(ax: Axes, panel: Panel, *, diagonal: Range | None = None) -> Axes:
    """The given axes, with a heatmap of one Gram: cosines off the diagonal, log10 G_ii on it. Dead tasks are grey.

    `ax.figure.colorbar(ax.images[0], ax=ax)` adds a colour bar for the cosines, `ax.images[1]` one for the diagonal.

    Args:
        ax: to draw on.
        panel: the Gram's numbers, from `toppo_diag.analysis.heatmap.gram_panel`.
        diagonal: least and greatest log10 G_ii of the colour map; those of this Gram by default.
    """
    k = len(panel.tasks)
    _draw_grid(dress(ax), panel, diagonal or _diagonal_range([panel]), "equal")
    ax.set_yticks(range(k), [short(t) for t in panel.tasks])
    ax.set_xticks(range(k), [short(t) for t in panel.tasks], rotation=90)
    ax.tick_params(labelsize=name_size(k), length=1.5, pad=1)
    return ax


@paper_style()
def draw_shares(ax: Axes, panel: Panel, *, limits: Range | None = None) -> Axes:
    """The given axes, with a dot per task for ||g_i|| / K on a log scale. Its right title is the spread, max / min.

    The mean |cos| stands below it. If the panel stands for several minibatches, both are medians, with their ranges.

    Args:
        ax: to draw on.
        panel: the Gram's numbers, from `toppo_diag.analysis.heatmap.gram_panel`.
        limits: log10 of the least and the greatest dot to make room for; those of this Gram by default.
    """
    width = ax.get_window_extent().width / whole(ax.figure).dpi
    _draw_dots(dress(ax), panel, limits or _share_range([panel]), 1.0, width)
    ax.set_ylabel(r"$\Vert g_i\Vert/K$")
    return ax


@dataclass(frozen=True)
class _Place:
    """The layout of a picture, in inches from its lower left corner.

    Attributes:
        left: start of the first grid.
        bottom: space below the last grid.
        cell: width and height of a grid.
        width, height: size of the picture.
        scale: inches of the figure per inch of the picture, at most 1.
        space: width and height of the figure. The picture stands in its middle.
        note: what is said below the picture, in lines that fit.
    """

    left: float
    bottom: float
    cell: float
    width: float
    height: float
    scale: float
    space: tuple[float, float]
    note: str

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Left, bottom, width and height as fractions of the figure."""
        wide, high = self.space
        beside, below = (wide - self.scale * self.width) / 2, (high - self.scale * self.height) / 2
        return (
            (beside + self.scale * x) / wide,
            (below + self.scale * y) / high,
            self.scale * width / wide,
            self.scale * height / high,
        )


def _place(tasks: Sequence[str], rows: int, columns: int, space: tuple[float, float] | None, note: str) -> _Place:
    """Places for rows x columns grids in the given space, or in a figure of a page's width, with a note below."""
    names = name_length(tasks)
    left = names + 0.35
    across = ((PAGE_WIDTH if space is None else space[0]) - left - _RIGHT - (columns - 1) * _GAP) / columns
    if space is None:
        cell = max(min(across, _WIDEST), _LEAST_PER_TASK * len(tasks))
        width = left + columns * cell + (columns - 1) * _GAP + _RIGHT
    else:
        width = space[0]
    lines = textwrap.wrap(note, int(width * 120 / _NOTE))
    bottom = 0.9 * names + 0.1 + _LINE * _NOTE * 1.2 * len(lines)
    if space is not None:
        down = (space[1] - _HEAD - bottom) / rows - _BAR - _GAP
        cell = max(min(across, down), _LINE * name_size(len(tasks)) * len(tasks), _LEAST)
    width = left + columns * cell + (columns - 1) * _GAP + _RIGHT
    height = _HEAD + rows * (cell + _BAR + _GAP) + bottom
    scale = 1.0 if space is None else min(1.0, space[0] / width, space[1] / height)
    return _Place(left, bottom, cell, width, height, scale, space or (width, height), "\n".join(lines))


def _note(minibatches: int, asked_for: int | None) -> str:
    """What a picture says about the minibatches that it stands for."""
    if asked_for is not None:
        return f"Squares and numbers: minibatch {asked_for} of each snapshot alone."
    if minibatches < 2:
        return ""
    return (
        "Squares: the minibatch with the median mean |cos|. "
        f"Numbers: spread and mean |cos|, medians of the {minibatches} minibatches, and their ranges."
    )


def _title(column: str, width: float) -> tuple[str, float]:
    """The heading of a column and its font size in points, such that it is no wider than `width` inches."""
    size, per_point = 7.5, 1 / 120  # inches that a letter takes for each point
    if len(column) * size * per_point <= width:
        return column, size
    wrapped = column.replace(" (", "\n(")
    return wrapped, max(4.0, min(size, width / (per_point * max(map(len, wrapped.split("\n"))))))


def _diagonal_range(panels: Iterable[Panel]) -> Range:
    return _range([p.log10_square for p in panels])


def _share_range(panels: Iterable[Panel]) -> Range:
    return _range([np.log10(p.share, where=p.share > 0, out=np.full(len(p.share), -np.inf)) for p in panels])


def _range(values: Sequence[np.ndarray]) -> Range:
    """Least and greatest finite value. If they are equal, or there are none, an interval of length 1."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _draw_grid(ax: Axes, panel: Panel, diagonal: Range, aspect: Literal["equal", "auto"]) -> None:
    k = len(panel.tasks)
    dead, unknown = ~np.isfinite(panel.log10_square), np.isnan(panel.log10_square)
    off = np.ma.masked_where(np.eye(k, dtype=bool) | dead[:, None] | dead[None, :], panel.cosine)
    ax.set_facecolor(DEAD)
    ax.imshow(off, cmap=COSINE_MAP, vmin=-1, vmax=1, interpolation="nearest", aspect=aspect)
    on = np.ma.masked_array(np.zeros((k, k)), mask=True)
    live = np.flatnonzero(~dead)
    on[live, live] = panel.log10_square[live]
    ax.imshow(on, cmap=MAGNITUDE_MAP, vmin=diagonal[0], vmax=diagonal[1], interpolation="nearest", aspect=aspect)
    if unknown.all():
        ax.set_facecolor(LOST)
        ax.text(0.5, 0.5, "no finite\ngradient", transform=ax.transAxes, ha="center", va="center", gid="lost note")
        return
    gap: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.8", "hatch": "////", "linewidth": 0, "gid": "gap"}
    for i in np.flatnonzero(unknown):
        ax.axhspan(i - 0.5, i + 0.5, **gap)
        ax.axvspan(i - 0.5, i + 0.5, **gap)


def _draw_dots(ax: Axes, panel: Panel, shares: Range, scale: float, width: float) -> None:
    k = len(panel.tasks)
    live = panel.share > 0
    low, high = shares
    # dots: a log axis has no zero, so that the length of a bar would mean nothing
    ax.plot(np.arange(k)[live], panel.share[live], "o", color="0.25", markersize=(2.4 if k <= 15 else 1.6) * scale)
    ax.set_yscale("log")
    ax.set_ylim(10 ** (low - 0.15 * (high - low)), 10 ** (high + 0.15 * (high - low)))
    decades = range(math.ceil(low), math.floor(high) + 1)
    if len(decades) > 1:
        ax.set_yticks([10.0 ** decades[0], 10.0 ** decades[-1]])
    else:
        ax.set_yticks([10**low, 10**high], [f"{10**low:.2g}", f"{10**high:.2g}"])
    ax.set_xlim(-0.5, k - 0.5)
    ax.set_xticks([])
    ax.tick_params(labelsize=5 * scale, length=1.5, pad=1)
    ax.minorticks_off()
    said = _badge(panel)
    size = min(_BADGE, 120 * width / max(1, *map(len, said.split("\n"))))  # a letter takes 1/120 inch for each point
    ax.set_title(said, loc="right", pad=1.5, fontsize=size * scale)


def _badge(panel: Panel) -> str:
    """Medians of the spread and of mean |cos|, with their ranges where there are several minibatches."""
    spread, cosine = panel.spread, panel.mean_abs_cosine
    lines = [f"{times(spread.median)} {spread_range(spread)}"] if spread.n else []
    if cosine.n:
        around = f" ({cosine.low:.2f} to {cosine.high:.2f})" if cosine.n > 1 else ""
        lines.append(f"|cos| {cosine.median:.2f}{around}")
    return "\n".join(line.strip() for line in lines)


def _colour_bars(target: Target, at: _Place, diagonal: Range, side: str) -> None:
    x = at.width - _RIGHT + 0.12
    length = min((at.height - at.bottom) * 0.42, 1.5)
    for i, (mapping, label) in enumerate(
        (
            (ScalarMappable(Normalize(-1, 1), COSINE_MAP), rf"$\cos(g_i, g_j)$, {side}"),
            (ScalarMappable(Normalize(*diagonal), MAGNITUDE_MAP), r"diagonal: $\log_{10} G_{ii}$"),
        )
    ):
        bar = target.colorbar(mapping, cax=target.add_axes(at.box(x, at.bottom + i * (length + 0.2), 0.09, length)))
        bar.locator = MaxNLocator(4, steps=[1, 2, 5, 10])
        bar.update_ticks()
        bar.set_label(label, fontsize=6 * at.scale, labelpad=2)
        fix_ticks(bar.ax).tick_params(labelsize=5.5 * at.scale, length=1.5, pad=1)

"""The same picture of several runs, one below the other, so that their panels stand in columns and can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.style import Target, paper_style, sheet, whole

_TITLE = 0.22
"""Inches that the name of a run takes."""


@paper_style()
def stacked_figure(draws: Mapping[str, Callable[..., Figure]], *, figure: Target | None = None) -> Figure:
    """The Figure with the pictures of several runs. Panels of one kind have the same vertical axis.

    Args:
        draws: what draws the picture of a run, by the run's name. It takes `figure`, like every `..._figure` function.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    sizes = [draw().get_size_inches() for draw in draws.values()]
    heights = [float(height) + _TITLE for _, height in sizes]
    target = sheet(figure, max(float(width) for width, _ in sizes), sum(heights))
    rows = target.subfigures(len(draws), 1, squeeze=False, height_ratios=heights)[:, 0]
    panels = []
    for row, (name, draw) in zip(rows, draws.items(), strict=True):
        draw(figure=row)
        row.suptitle(name, fontsize=8, fontweight="bold")
        panels.append(_axes(row))
    for alike in zip(*panels, strict=False):
        _same_range(alike)
    return whole(target)


def _axes(target: Target) -> list[Axes]:
    """The axes of a picture and of its parts, in the order in which they were made."""
    return [*target.axes] if not target.subfigs else [ax for part in target.subfigs for ax in _axes(part)]


def _same_range(alike: Sequence[Axes]) -> None:
    """Give panels that show the same quantity the same vertical axis."""
    same = all(
        a.get_ylabel() == b.get_ylabel() and a.get_yscale() == b.get_yscale() and not a.images and not b.images
        for a, b in pairwise(alike)
    )
    if same and alike[0].get_ylabel() and not alike[0].yaxis_inverted():
        low = min(min(ax.get_ylim()) for ax in alike)
        high = max(max(ax.get_ylim()) for ax in alike)
        for ax in alike:
            ax.set_ylim(low, high)

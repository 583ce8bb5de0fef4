"""Plots: functions from numbers to matplotlib figures. They compute nothing, and only `save_figure` writes files.

There are two kinds of functions.

A `..._figure` function draws a whole picture with its legend. Without `figure` it makes a Figure of the paper's size.
With `figure` it draws on that Figure or SubFigure, so that pictures can stand side by side. It returns the Figure in
both cases; for a SubFigure this is the Figure that holds it. Two pictures in one:

    figure = matplotlib.figure.Figure(figsize=(14, 3), layout="constrained")
    left, right = figure.subfigures(1, 2)
    norms_figure(series, tasks, ["critic"], figure=left)
    weights_figure(shares, titles, tasks, 10, figure=right)
    save_figure(figure, "both")

A `draw_...` function draws one panel into the axes `ax` and returns them. Its lines carry labels, so `ax.legend()`
adds a legend where one is wanted. (`draw_realised` has its own.) Titles and labels can be changed afterwards.

All functions use the paper's style by themselves, also in axes that were made with other settings. They leave
`matplotlib.rcParams` unchanged. `save_figure` writes the same files as the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toppo_diag.plots.conflicts import conflicts_figure, draw_layers, draw_pairs
    from toppo_diag.plots.contributions import contributions_figure, draw_contributions
    from toppo_diag.plots.curves import (
        draw_ladder,
        draw_success,
        draw_worst_k,
        ladder_figure,
        per_task_figure,
        success_figure,
        worst_k_figure,
    )
    from toppo_diag.plots.health import draw_medians, health_figure
    from toppo_diag.plots.heatmap import draw_gram, draw_shares, heatmap_figure
    from toppo_diag.plots.invariance import draw_realised, invariance_figure
    from toppo_diag.plots.norms import draw_norms, norms_figure
    from toppo_diag.plots.replay import draw_cosines, draw_worst_cosines, replay_figure
    from toppo_diag.plots.style import paper_style, save_figure
    from toppo_diag.plots.trap import draw_direction_shares, trap_figure
    from toppo_diag.plots.weights import draw_weights, weights_figure

_HOMES = {
    "conflicts": ("conflicts_figure", "draw_layers", "draw_pairs"),
    "contributions": ("contributions_figure", "draw_contributions"),
    "curves": (
        *("draw_ladder", "draw_success", "draw_worst_k"),
        *("ladder_figure", "per_task_figure", "success_figure", "worst_k_figure"),
    ),
    "health": ("draw_medians", "health_figure"),
    "heatmap": ("draw_gram", "draw_shares", "heatmap_figure"),
    "invariance": ("draw_realised", "invariance_figure"),
    "norms": ("draw_norms", "norms_figure"),
    "replay": ("draw_cosines", "draw_worst_cosines", "replay_figure"),
    "style": ("paper_style", "save_figure"),
    "trap": ("draw_direction_shares", "trap_figure"),
    "weights": ("draw_weights", "weights_figure"),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "conflicts_figure",
    "contributions_figure",
    "draw_contributions",
    "draw_cosines",
    "draw_direction_shares",
    "draw_gram",
    "draw_ladder",
    "draw_layers",
    "draw_medians",
    "draw_norms",
    "draw_pairs",
    "draw_realised",
    "draw_shares",
    "draw_success",
    "draw_weights",
    "draw_worst_cosines",
    "draw_worst_k",
    "health_figure",
    "heatmap_figure",
    "invariance_figure",
    "ladder_figure",
    "norms_figure",
    "paper_style",
    "per_task_figure",
    "replay_figure",
    "save_figure",
    "success_figure",
    "trap_figure",
    "weights_figure",
    "worst_k_figure",
]


def __getattr__(name: str) -> Any:
    """A plot function, imported when it is first asked for. `toppo_diag.plots.names` needs no matplotlib."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The names of all plot functions."""
    return sorted(__all__)

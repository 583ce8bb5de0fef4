"""Per-task gradient norms over training (Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from toppo_diag.analysis.norms import NormSeries
from toppo_diag.plots.style import (
    GRADIENT_UNIT,
    PAGE_WIDTH,
    combiner_style,
    draw_tasks,
    legend_height,
    marker,
    steps_axis,
    task_legend,
    times,
)

_BOLD = {"linewidth": 1.8}


def norms_figure(series: Mapping[str, NormSeries], tasks: Sequence[str], fairgrad: Sequence[str]) -> Figure:
    """One panel a side: thin coloured lines ||g_i||, bold dashed black the mean aggregator, bold red FairGrad at
    alpha = 1.

    Args:
        series: by side.
        tasks: K names.
        fairgrad: sides that show FairGrad's norm.
    """
    overlaid = {"mean aggregator": combiner_style("mean") | _BOLD}
    if fairgrad:
        label = "FG-c, \u03b1 = 1: \u221aK" if list(fairgrad) == ["critic"] else "FG, \u03b1 = 1: \u221aK"
        overlaid[label] = combiner_style("fairgrad:alpha=1") | _BOLD
    legend = legend_height(PAGE_WIDTH, [*overlaid, *tasks])
    figure = Figure(figsize=(PAGE_WIDTH, 2.2 + legend), layout="constrained")
    axes = figure.subplots(1, len(series), squeeze=False)[0]
    for letter, ax, (side, s) in zip("abcdefgh", axes, series.items(), strict=False):
        draw_tasks(ax, s.env_steps, s.norms, tasks, linewidth=0.6)
        dots = marker(len(s.env_steps))
        ax.plot(s.env_steps, s.mean_norm, **combiner_style("mean"), **_BOLD, **dots, gid="mean")
        if side in fairgrad:
            look = combiner_style("fairgrad:alpha=1")
            ax.plot(s.env_steps, s.fairgrad_norm, **look, **_BOLD, **dots, gid="fairgrad")
        ax.set_title(f"({letter}) {side}: spread {times(s.median_spread)}")
        ax.set_ylabel(rf"$\Vert g_i\Vert$, {side} ({GRADIENT_UNIT})")
        steps_axis(ax)
    dead = [all((s.norms[:, k] == 0).all() for s in series.values()) for k in range(len(tasks))]
    task_legend(figure, tasks, dead, overlaid)
    return figure

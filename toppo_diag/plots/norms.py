"""Length of each task's gradient over training (Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.analysis.norms import NormSeries
from toppo_diag.plots.style import (
    GRADIENT_UNIT,
    PAGE_WIDTH,
    STEPS,
    Target,
    combiner_style,
    dots,
    draw_tasks,
    dress,
    legend_height,
    other_tasks,
    outstanding,
    panel_letters,
    paper_style,
    sheet,
    spread_range,
    steps_axis,
    task_legend,
    times,
    whole,
)

_BOLD = {"linewidth": 1.8}
_MEAN = "mean aggregator"
_FAIRGRAD = "FairGrad, \u03b1 = 1: \u221aK"


@paper_style()
def norms_figure(
    series: Mapping[str, NormSeries],
    tasks: Sequence[str],
    fairgrad: Sequence[str],
    *,
    axis: str = STEPS,
    raw: Sequence[str] = (),
    figure: Target | None = None,
) -> Figure:
    """The Figure with one panel per side: ||g_i|| per task, and the step of two combiners on the same gradients.

    The bold dashed black line is the mean, the bold red one FairGrad at alpha = 1. A point is the median over the
    minibatches of its step. The titles give the median of the spread over all minibatches, and its range.

    Args:
        series: by side, that is by named group of shared parameters.
        tasks: K names.
        fairgrad: sides whose panel shows FairGrad's step.
        axis: label of the steps.
        raw: sides whose gradients are shown with PopArt's rescaling taken back.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    overlaid = {_MEAN: combiner_style("mean") | _BOLD}
    if fairgrad:
        label = "FG-c, \u03b1 = 1: \u221aK" if list(fairgrad) == ["critic"] else _FAIRGRAD
        overlaid[label] = combiner_style("fairgrad:alpha=1") | _BOLD
    named = outstanding(next(iter(series.values())).norms.median, tasks)
    labels = [*overlaid, *named, *other_tasks(tasks, named)]
    target = sheet(figure, PAGE_WIDTH, 2.3 + legend_height(PAGE_WIDTH, labels))
    axes = target.subplots(1, len(series), squeeze=False)[0]
    for letter, ax, (side, s) in zip(panel_letters(), axes, series.items(), strict=False):
        draw_norms(ax, s, tasks, fairgrad=side in fairgrad, named=named, axis=axis)
        spread = s.typical["spread"]
        taken_back = ", raw" if side in raw else ""
        ax.set_title(f"({letter}) {side}{taken_back}: spread {times(spread.median)}\n{spread_range(spread)}".rstrip())
        ax.set_ylabel(rf"$\Vert g_i\Vert$, {side} ({GRADIENT_UNIT})")
    dead = [all((s.norms.median[:, k] == 0).all() for s in series.values()) for k in range(len(tasks))]
    task_legend(target, tasks, dead, overlaid, named)
    return whole(target)


@paper_style()
def draw_norms(
    ax: Axes,
    series: NormSeries,
    tasks: Sequence[str],
    *,
    fairgrad: bool = True,
    named: Sequence[str] | None = None,
    axis: str = STEPS,
) -> Axes:
    """The given axes, with one line per task for ||g_i||, and bold lines for the step of two combiners.

    Args:
        ax: to draw on.
        series: lengths over training, from `toppo_diag.analysis.norms.norm_series`.
        tasks: K names.
        named: tasks with colours; the others are grey. None takes those with the lowest and highest lines.
        fairgrad: whether to draw FairGrad's step beside the mean's.
        axis: label of the steps.
    """
    draw_tasks(dress(ax), series.env_steps, series.norms.median, tasks, named, linewidth=0.6)
    bold = _BOLD | dots(series.mean_norm.median)
    ax.plot(series.env_steps, series.mean_norm.median, **combiner_style("mean"), **bold, gid="mean", label=_MEAN)
    if fairgrad:
        look = combiner_style("fairgrad:alpha=1")
        ax.plot(series.env_steps, series.fairgrad_norm.median, **look, **bold, gid="fairgrad", label=_FAIRGRAD)
    ax.set_ylabel(rf"$\Vert g_i\Vert$ ({GRADIENT_UNIT})")
    steps_axis(ax, axis)
    return ax

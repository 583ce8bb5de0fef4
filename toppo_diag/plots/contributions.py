"""Length of each task's part of the step over training (Figure D.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.analysis.typical import Typical
from toppo_diag.plots.style import (
    GRADIENT_UNIT,
    PAGE_WIDTH,
    STEPS,
    Target,
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

_LENGTH = rf"$\Vert w_i g_i\Vert$ ({GRADIENT_UNIT})"


@paper_style()
def contributions_figure(
    env_steps: Int[np.ndarray, "T"],
    panels: Mapping[str, Float[np.ndarray, "T K"]],
    spreads: Mapping[str, Typical],
    tasks: Sequence[str],
    *,
    axis: str = STEPS,
    figure: Target | None = None,
) -> Figure:
    """The Figure with one panel per condition: ||w_i g_i|| per task, all on one log axis.

    Args:
        env_steps: of the T snapshots.
        panels: contributions ||w_i g_i|| by condition, the median over the minibatches of each snapshot.
        spreads: max / min of the contributions by condition, for the titles: the median and the range.
        tasks: K names.
        axis: label of the steps.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    named = outstanding(next(iter(panels.values())), tasks)
    labels = [*named, *other_tasks(tasks, named)]
    target = sheet(figure, PAGE_WIDTH, 2.0 + legend_height(PAGE_WIDTH, labels))
    axes = target.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for letter, ax, (condition, values) in zip(panel_letters(), axes, panels.items(), strict=False):
        draw_contributions(ax, env_steps, values, tasks, named=named, axis=axis)
        spread = spreads[condition]
        ax.set_title(f"({letter}) {condition}\nspread {times(spread.median)}\n{spread_range(spread)}".rstrip())
        ax.set_ylabel(_LENGTH if ax is axes[0] else "")
    dead = [all((values[:, k] == 0).all() for values in panels.values()) for k in range(len(tasks))]
    task_legend(target, tasks, dead, named=named)
    return whole(target)


@paper_style()
def draw_contributions(
    ax: Axes,
    env_steps: Int[np.ndarray, "T"],
    values: Float[np.ndarray, "T K"],
    tasks: Sequence[str],
    *,
    named: Sequence[str] | None = None,
    axis: str = STEPS,
) -> Axes:
    """The given axes, with one line per task for ||w_i g_i|| on a log axis.

    Args:
        ax: to draw on.
        env_steps: of the T snapshots.
        values: contributions ||w_i g_i||.
        tasks: K names.
        named: tasks with colours; the others are grey. None takes those with the lowest and highest lines.
        axis: label of the steps.
    """
    draw_tasks(dress(ax), env_steps, values, tasks, named)
    ax.set_ylabel(_LENGTH)
    steps_axis(ax, axis)
    return ax

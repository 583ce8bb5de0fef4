"""Per-task contributions to the step over training (Figure D.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from toppo_diag.plots.style import (
    GRADIENT_UNIT,
    PAGE_WIDTH,
    draw_tasks,
    legend_height,
    steps_axis,
    task_legend,
    times,
)


def contributions_figure(
    env_steps: Int[np.ndarray, "T"],
    panels: Mapping[str, Float[np.ndarray, "T K"]],
    spreads: Mapping[str, float],
    tasks: Sequence[str],
) -> Figure:
    """One panel a condition, ||w_i g_i|| of each task on one log axis, the spread in the title.

    Args:
        env_steps: of the snapshots.
        panels: condition to contributions.
        spreads: condition to the spread to state.
        tasks: K names.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 1.9 + legend_height(PAGE_WIDTH, tasks)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for letter, ax, (condition, values) in zip("abcd", axes, panels.items(), strict=False):
        draw_tasks(ax, env_steps, values, tasks)
        ax.set_title(f"({letter}) {condition}\nspread {times(spreads[condition])}")
        steps_axis(ax)
    axes[0].set_ylabel(rf"$\Vert w_i g_i\Vert$ ({GRADIENT_UNIT})")
    dead = [all((values[:, k] == 0).all() for values in panels.values()) for k in range(len(tasks))]
    task_legend(figure, tasks, dead)
    return figure

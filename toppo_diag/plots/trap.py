"""The self-reinforcing tail trap of Section 3: each task's share of the step beside its success."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import (
    PAGE_WIDTH,
    STEPS,
    Target,
    dots,
    dress,
    legend_height,
    log_axis,
    mark_lost,
    other_tasks,
    outstanding,
    paper_style,
    sheet,
    steps_axis,
    task_legend,
    task_styles,
    whole,
)


@paper_style()
def trap_figure(
    env_steps: Int[np.ndarray, "T"],
    shares: Float[np.ndarray, "T K"],
    outcome: Float[np.ndarray, "T K"] | None,
    starved: Sequence[str],
    threshold: float,
    tasks: Sequence[str],
    side: str,
    *,
    beside: tuple[str, str] | None = None,
    in_a_row: int = 3,
    remarks: Sequence[str] = (),
    axis: str = STEPS,
    figure: Target | None = None,
) -> Figure:
    """The Figure with each task's share of the step d = J'w and, beside it, each task's success, return or loss.

    Starved tasks have bold lines and stand in the title.

    Args:
        env_steps: of the T snapshots.
        shares: w_i <g_i, d> / ||d||^2.
        outcome: success, return or loss; None where none was recorded, which leaves one panel.
        starved: tasks to point out.
        threshold: share below which a task is starved.
        tasks: K names.
        side: named group of shared parameters, such as "critic", for the labels.
        beside: label of the outcome, and its scale: "rate" (0 to 1), "log" or "own". None takes success from 0 to 1.
        in_a_row: snapshots below the threshold, up to the last one, that make a task starved, for the title.
        remarks: lines below the title, such as what the weights are.
        axis: label of the steps.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    named = list(dict.fromkeys([*starved, *outstanding(shares, tasks)]))
    labels = [*named, *other_tasks(tasks, named)]
    target = sheet(figure, PAGE_WIDTH, 2.35 + 0.1 * len(remarks) + legend_height(PAGE_WIDTH, labels))
    axes = target.subplots(1, 2 if outcome is not None else 1, squeeze=False)[0]
    draw_direction_shares(
        axes[0], env_steps, shares, starved, threshold, tasks, in_a_row=in_a_row, remarks=remarks, axis=axis
    )
    axes[0].set_ylabel(f"share of the {side} direction,\n" + r"$w_i\,\langle g_i, d\rangle / \Vert d\Vert^2$")
    if outcome is not None:
        label, scale = beside or ("success", "rate")
        _draw_lines(dress(axes[1]), env_steps, outcome, starved, tasks, named, axis)
        axes[1].set_ylabel(label)
        if scale == "rate":
            axes[1].set_ylim(-0.03, 1.03)
        elif scale == "log" and (known := outcome[np.isfinite(outcome)]).size and known.min() > 0:
            log_axis(axes[1], known)
    task_legend(target, tasks, named=named)
    return whole(target)


@paper_style()
def draw_direction_shares(
    ax: Axes,
    env_steps: Int[np.ndarray, "T"],
    shares: Float[np.ndarray, "T K"],
    starved: Sequence[str],
    threshold: float,
    tasks: Sequence[str],
    *,
    in_a_row: int = 3,
    remarks: Sequence[str] = (),
    axis: str = STEPS,
) -> Axes:
    """The given axes, with one line per task for its share of the step; the grey band is where a task is starved.

    Args:
        ax: to draw on.
        env_steps: of the T snapshots.
        shares: w_i <g_i, d> / ||d||^2, from `toppo.combiners.geometry.direction_shares`.
        starved: tasks to point out.
        threshold: share below which a task is starved.
        tasks: K names.
        in_a_row: snapshots below the threshold, up to the last one, that make a task starved, for the title.
        remarks: lines below the title, such as what the weights are.
        axis: label of the steps.
    """
    named = list(dict.fromkeys([*starved, *outstanding(shares, tasks)]))
    _draw_lines(dress(ax), env_steps, shares, starved, tasks, named, axis)
    if threshold > 0:
        ax.set_yscale("symlog", linthresh=threshold)
    bottom, top = ax.get_ylim()
    bottom, top = min(bottom, threshold / 2), max(top, 2 / len(tasks))  # the band shows where no line goes near it
    ax.axhspan(min(bottom, -1e3), threshold, color="0.92", zorder=0)
    ax.set_ylim(bottom, top)
    ax.axhline(1 / len(tasks), color="0.4", linewidth=0.6, linestyle=":")
    ax.annotate("1/K", (1, 1 / len(tasks)), (1, 0), xycoords=("axes fraction", "data"), textcoords="offset points")
    ax.set_ylabel(r"share of the step, $w_i\,\langle g_i, d\rangle / \Vert d\Vert^2$")
    found = ", ".join(short(t) for t in starved) if len(starved) <= 4 else f"{len(starved)} tasks"
    last = f"the last {in_a_row} snapshots" if in_a_row > 1 else "the last snapshot"
    rule = f"starved = in the grey band in {last}, beyond noise:"
    ax.set_title("\n".join([rule, found or "no task", *remarks]), fontsize=6.5)
    return ax


def _draw_lines(
    ax: Axes,
    env_steps: Int[np.ndarray, "T"],
    values: Float[np.ndarray, "T K"],
    starved: Sequence[str],
    tasks: Sequence[str],
    named: Sequence[str],
    axis: str,
) -> None:
    looks = task_styles(tasks, named)
    for k, task in enumerate(tasks):
        width = 2.0 if task in starved else 0.8
        how = {"gid": f"task {task}", "label": short(task), "linewidth": width, **dots(values[:, k]), **looks[task]}
        ax.plot(env_steps, values[:, k], **how)
    mark_lost(ax, env_steps, values)
    steps_axis(ax, axis)

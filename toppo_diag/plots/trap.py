"""The self-reinforcing tail trap: share of the direction against success."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import PAGE_WIDTH, legend_height, marker, steps_axis, task_legend, task_styles


def trap_figure(
    env_steps: Int[np.ndarray, "T"],
    shares: Float[np.ndarray, "T K"],
    success: Float[np.ndarray, "T K"] | None,
    starved: Sequence[str],
    threshold: float,
    tasks: Sequence[str],
    side: str,
) -> Figure:
    """Each task's share of the combined direction, and beside it its success; starved tasks are bold and named.

    Args:
        env_steps: of the snapshots.
        shares: w_i <g_i, d> / ||d||^2.
        success: in 0..1, None where it was not recorded.
        starved: tasks to flag.
        threshold: below which a task is starved.
        tasks: K names.
        side: for the labels.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 2.2 + legend_height(PAGE_WIDTH, tasks)), layout="constrained")
    axes = figure.subplots(1, 2 if success is not None else 1, squeeze=False)[0]
    looks = task_styles(tasks)
    for ax, values in zip(axes, (shares, success), strict=False):
        assert values is not None
        for k, task in enumerate(tasks):
            width = 2.0 if task in starved else 0.8
            ax.plot(
                env_steps, values[:, k], **looks[task], **marker(len(env_steps)), linewidth=width, gid=f"task {task}"
            )
        steps_axis(ax)
    if threshold > 0:
        axes[0].set_yscale("symlog", linthresh=threshold)
    bottom, top = axes[0].get_ylim()
    axes[0].axhspan(bottom, threshold, color="0.92", zorder=0)
    axes[0].set_ylim(bottom, top)
    axes[0].axhline(1 / len(tasks), color="0.4", linewidth=0.6, linestyle=":")
    axes[0].annotate("1/K", (1, 1 / len(tasks)), (1, 0), xycoords=("axes fraction", "data"), textcoords="offset points")
    axes[0].set_ylabel(f"share of the {side} direction,\n" + r"$w_i\,\langle g_i, d\rangle / \Vert d\Vert^2$")
    named = ", ".join(short(t) for t in starved) if len(starved) <= 4 else f"{len(starved)} tasks"
    axes[0].set_title(f"starved (grey band): {named or 'none'}", fontsize=6.5)
    if success is not None:
        axes[1].set(ylabel="success (long moving average)", ylim=(-0.03, 1.03))
    task_legend(figure, tasks)
    return figure

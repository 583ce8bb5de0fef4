"""Weights over training (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
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
    other_tasks,
    outstanding,
    paper_style,
    sheet,
    steps_axis,
    task_legend,
    task_styles,
    whole,
)

_SHARE = r"weight $w_i / \Sigma_j |w_j|$"


@paper_style()
def weights_figure(
    series: Mapping[str, tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N K"]]],
    titles: Mapping[str, str],
    tasks: Sequence[str],
    window: int,
    *,
    axis: str = STEPS,
    figure: Target | None = None,
) -> Figure:
    """The Figure with one panel per side and one line per task. The dotted line is the even share 1/K.

    Args:
        series: by side (named group of shared parameters), steps and the moving average of the shares.
        titles: name of the combiner by side.
        tasks: K names.
        window: the most minibatches in one average.
        axis: label of the steps.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    named = outstanding(next(iter(series.values()))[1], tasks)
    labels = [*named, *other_tasks(tasks, named)]
    target = sheet(figure, PAGE_WIDTH, 2.2 + legend_height(PAGE_WIDTH, labels))
    axes = target.subplots(1, len(series), squeeze=False)[0]
    over = f"mean of up to {window} minibatches" if window > 1 else "each minibatch"
    for ax, (side, (steps, shares)) in zip(axes, series.items(), strict=True):
        draw_weights(ax, steps, shares, tasks, named=named, axis=axis)
        ax.set_title(f"{side}: {titles[side]}")
        ax.set_ylabel(f"{_SHARE},\n{over}")
    task_legend(target, tasks, named=named)
    return whole(target)


@paper_style()
def draw_weights(
    ax: Axes,
    env_steps: Float[np.ndarray, "N"],
    shares: Float[np.ndarray, "N K"],
    tasks: Sequence[str],
    *,
    named: Sequence[str] | None = None,
    axis: str = STEPS,
) -> Axes:
    """The given axes, with one line per task for its share of the weights. The dotted line is the even share 1/K.

    Args:
        ax: to draw on.
        env_steps: of the N minibatches.
        shares: w_i / sum_j |w_j|, from `toppo_diag.analysis.weights.weight_shares`.
        tasks: K names.
        named: tasks with colours; the others are grey. None takes those with the lowest and highest lines.
        axis: label of the steps.
    """
    dress(ax)
    looks = task_styles(tasks, outstanding(shares, tasks) if named is None else named)
    for k, task in enumerate(tasks):
        how = {"gid": f"task {task}", "label": short(task), **dots(shares[:, k]), **looks[task]}
        ax.plot(env_steps, shares[:, k], **how)
    ax.axhline(1 / len(tasks), color="0.4", linewidth=0.6, linestyle=":", gid="even")
    ax.set_ylim(min(0, ax.get_ylim()[0]), max(1.2 / len(tasks), ax.get_ylim()[1]))
    ax.set_ylabel(_SHARE)
    steps_axis(ax, axis)
    return ax

"""Weight dynamics over training (Figure 5 of TaskForce's appendix)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from toppo_diag.plots.style import PAGE_WIDTH, legend_height, marker, steps_axis, task_legend, task_styles


def weights_figure(
    series: Mapping[str, tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N K"]]],
    titles: Mapping[str, str],
    tasks: Sequence[str],
    window: int,
) -> Figure:
    """One panel a side, one line a task; dotted, the even share 1/K.

    Args:
        series: by side, environment steps and the moving average of the shares of the weights.
        titles: by side, which combiner.
        tasks: K names.
        window: of the moving average, in dumped minibatches.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 2.2 + legend_height(PAGE_WIDTH, tasks)), layout="constrained")
    axes = figure.subplots(1, len(series), squeeze=False)[0]
    looks = task_styles(tasks)
    for ax, (side, (steps, shares)) in zip(axes, series.items(), strict=True):
        for k, task in enumerate(tasks):
            ax.plot(steps, shares[:, k], **looks[task], **marker(len(steps)), gid=f"task {task}")
        ax.axhline(1 / len(tasks), color="0.4", linewidth=0.6, linestyle=":", gid="even")
        ax.set_title(f"{side}: {titles[side]}")
        over = f"mean of {window} minibatches" if window > 1 else "each minibatch"
        ax.set_ylabel(f"weight $w_i / \\Sigma_j |w_j|$,\n{over}")
        steps_axis(ax)
    task_legend(figure, tasks)
    return figure

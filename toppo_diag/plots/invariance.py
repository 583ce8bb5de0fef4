"""Draws how scaling the gradients changes a combiner's step, for Theorem 1 and Corollary 1 (Figure D.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from toppo_diag.analysis.invariance import FACTORS, SIGMAS, Perturbation, Sweep
from toppo_diag.plots.style import (
    ENVIRONMENT_STEPS,
    PAGE_WIDTH,
    Target,
    combiner_label,
    combiner_style,
    dress,
    legend_columns,
    legend_height,
    paper_style,
    sheet,
    size_inches,
    steps_axis,
    whole,
)

_LEAST = 1e-17
"""Where a log axis shows a distance of exactly 0."""
_SAME = 1e-6
"""Cosines that differ from 1 by no more than this cannot be told from 1 in the figure."""


@paper_style()
def invariance_figure(
    sweeps: Mapping[str, Sweep],
    perturbations: Mapping[str, Perturbation],
    realised: Mapping[str, tuple[np.ndarray, Float[np.ndarray, "N"]]],
    tol: float,
    *,
    figure: Target | None = None,
) -> Figure:
    """The Figure that compares the step d~ on scaled gradients with the step d on the original gradients.

    In (a) and (b) one task is scaled; they show cosine and distance. In (c) all tasks are scaled by lognormal factors;
    it shows the cosine with 95 % bands. (d) shows the relative distance of Corollary 1 on the minibatches of a dump.

    Args:
        sweeps: by combiner.
        perturbations: by combiner.
        realised: environment steps and distances of N minibatches, by combiner. If it is empty, there is no (d).
        tol: largest distance that passes, drawn as a line in (d).
        figure: Figure or SubFigure to draw on; None makes one.
    """
    labels = [combiner_label(spec) for spec in sweeps]
    rows, columns = (2, 2) if realised else (1, 3)
    target = sheet(figure, PAGE_WIDTH, 1.9 * rows + legend_height(PAGE_WIDTH, labels) + 0.13)
    axes = [dress(ax) for ax in target.subplots(rows, columns, squeeze=False).flat]
    for spec in sorted(sweeps, key=lambda s: s == "fairgrad:alpha=1"):  # the paper's combiner on top
        look = combiner_style(spec) | {"linewidth": 1.6 if spec == "fairgrad:alpha=1" else 0.7, "gid": spec}
        axes[0].plot(FACTORS, sweeps[spec].cosine, **look)
        axes[1].plot(FACTORS, np.maximum(sweeps[spec].distance, _LEAST), **look)
        p = perturbations[spec]
        axes[2].plot(SIGMAS, p.median, **look)
        axes[2].fill_between(SIGMAS, p.low, p.high, color=look["color"], alpha=0.07, linewidth=0)
    hidden = {
        *_draw_hidden(axes[0], FACTORS, {spec: sweep.cosine for spec, sweep in sweeps.items()}),
        *_draw_hidden(axes[2], SIGMAS, {spec: p.median for spec, p in perturbations.items()}),
    }
    axes[0].set(xscale="log", xlabel="factor c on task 1", ylabel=r"$\cos(d, \tilde d)$", title="(a) one task scaled")
    axes[1].set(xscale="log", yscale="log", xlabel="factor c on task 1", title="(b) the same, distance")
    axes[1].set_ylabel(r"$\Vert\tilde d - d\Vert / \Vert d\Vert$")
    axes[2].set(xlabel=r"$\sigma$ of $\log c_i$", ylabel=r"$\cos(d, \tilde d)$", title="(c) all tasks scaled")
    if realised:
        draw_realised(axes[3], realised, tol)
        axes[3].set_title("(d) raw against PopArt, on dumped minibatches")
    labels = [f"{combiner_label(spec)} \u25cb" if spec in hidden else combiner_label(spec) for spec in sweeps]
    handles = [Line2D([], [], label=label, **combiner_style(spec)) for label, spec in zip(labels, sweeps, strict=True)]
    columns = legend_columns(size_inches(target)[0], labels)
    title = "\u25cb cos = 1 throughout: these lie under the line of FairGrad, \u03b1 = 1" if hidden else None
    target.legend(handles=handles, loc="outside lower center", ncols=columns, title=title, title_fontsize=6)
    return whole(target)


def _draw_hidden(ax: Axes, x: Float[np.ndarray, "X"], cosines: Mapping[str, Float[np.ndarray, "X"]]) -> list[str]:
    """The combiners that lie under the line of FairGrad at alpha = 1. Their open circles take turns on it.

    Args:
        ax: to draw on.
        x: the factors, (X,).
        cosines: by combiner, cos(d, d~) at each factor, (X,).
    """
    same = [s for s in cosines if s != "fairgrad:alpha=1" and np.allclose(cosines[s], 1, rtol=0, atol=_SAME)]
    for n, spec in enumerate(same):
        circles: dict[str, Any] = {"marker": "o", "markersize": 3, "markerfacecolor": "white", "linestyle": ""}
        circles |= {"color": combiner_style(spec)["color"], "zorder": 5, "gid": f"hidden {spec}"}
        ax.plot(x[n :: len(same)], cosines[spec][n :: len(same)], **circles)
    return same


@paper_style()
def draw_realised(ax: Axes, realised: Mapping[str, tuple[np.ndarray, Float[np.ndarray, "N"]]], tol: float) -> Axes:
    """The given axes, with a dot for each minibatch: the relative distance of Corollary 1 on a log axis.

    Args:
        ax: to draw on.
        realised: environment steps and distances of N minibatches, by combiner: "fairgrad:alpha=1",
            "fairgrad-paper" or both.
        tol: largest distance that passes, drawn as a dotted line.
    """
    dress(ax)
    for spec, (steps, distance) in realised.items():
        tight = spec == "fairgrad:alpha=1"
        colour = combiner_style(spec)["color"]
        ax.plot(
            steps,
            np.maximum(distance, _LEAST),
            linestyle="",
            marker="o" if tight else "s",
            markersize=3,
            color=colour,
            markerfacecolor=colour if tight else "none",
            gid=spec,
            label="FG, to rounding" if tight else "FG, the paper's \u03b7 = 1e-2",
        )
    ax.axhline(tol, color="0.4", linewidth=0.6, linestyle=":", gid="tol")
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    ax.annotate("tol", (1, tol), (-2, 2), **place)
    ax.set(yscale="log")
    ax.set_ylabel(r"$\Vert\tilde d - d\Vert / \Vert d\Vert$")
    ax.set_ylim(top=1e4 * ax.get_ylim()[1])  # room for the legend
    steps_axis(ax, ENVIRONMENT_STEPS)  # PopArt is the trainer's, whose steps these are
    ax.legend(loc="upper left", ncols=2)
    return ax

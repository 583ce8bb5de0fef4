"""Theorem 1 and Corollary 1 (Figure D.5)."""

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
    PAGE_WIDTH,
    combiner_label,
    combiner_style,
    legend_columns,
    legend_height,
    steps_axis,
)

_LEAST = 1e-17
"""Where a distance of exactly 0 is drawn on a log axis."""


def invariance_figure(
    sweeps: Mapping[str, Sweep],
    perturbations: Mapping[str, Perturbation],
    realised: Mapping[str, tuple[np.ndarray, Float[np.ndarray, "N"]]],
    tol: float,
) -> Figure:
    """(a) cosine and (b) distance under scaling of one task, (c) cosine under lognormal scaling of all with 95 % bands,
    (d) the relative distance of Corollary 1 on dumped minibatches.

    Args:
        sweeps: by combiner.
        perturbations: by combiner.
        realised: (env_steps, distance) of the minibatches, by combiner; empty leaves (d) out.
        tol: drawn as a line in (d).
    """
    labels = [combiner_label(spec) for spec in sweeps]
    rows, columns = (2, 2) if realised else (1, 3)
    figure = Figure(figsize=(PAGE_WIDTH, 1.9 * rows + legend_height(PAGE_WIDTH, labels)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spec in sorted(sweeps, key=lambda s: s == "fairgrad:alpha=1"):  # the paper's on top
        look = combiner_style(spec) | {"linewidth": 1.6 if spec == "fairgrad:alpha=1" else 0.7, "gid": spec}
        axes[0].plot(FACTORS, sweeps[spec].cosine, **look)
        axes[1].plot(FACTORS, np.maximum(sweeps[spec].distance, _LEAST), **look)
        p = perturbations[spec]
        axes[2].plot(SIGMAS, p.median, **look)
        axes[2].fill_between(SIGMAS, p.low, p.high, color=look["color"], alpha=0.07, linewidth=0)
    axes[0].set(xscale="log", xlabel="factor c on task 1", ylabel=r"$\cos(d, \tilde d)$", title="(a) one task scaled")
    axes[1].set(xscale="log", yscale="log", xlabel="factor c on task 1", title="(b) the same, distance")
    axes[1].set_ylabel(r"$\Vert\tilde d - d\Vert / \Vert d\Vert$")
    axes[2].set(xlabel=r"$\sigma$ of $\log c_i$", ylabel=r"$\cos(d, \tilde d)$", title="(c) all tasks scaled")
    if realised:
        _draw_realised(axes[3], realised, tol)
    handles = [Line2D([], [], label=combiner_label(spec), **combiner_style(spec)) for spec in sweeps]
    figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns(PAGE_WIDTH, labels))
    return figure


def _draw_realised(ax: Axes, realised: Mapping[str, tuple[np.ndarray, Float[np.ndarray, "N"]]], tol: float) -> None:
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
    ax.set(yscale="log", title="(d) raw against PopArt, on dumped minibatches")
    ax.set_ylabel(r"$\Vert\tilde d - d\Vert / \Vert d\Vert$")
    ax.set_ylim(top=1e4 * ax.get_ylim()[1])  # room for the legend
    steps_axis(ax)
    ax.legend(loc="upper left", ncols=2)

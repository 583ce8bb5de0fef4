"""Health of the Gram across conditions (Figure D.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from toppo_diag.plots.style import COLUMN_WIDTH


def health_figure(
    cosine: Mapping[str, Float[np.ndarray, "T"]],
    top_1: Mapping[str, Float[np.ndarray, "T"]],
    n_tasks: int,
    side: str,
) -> Figure:
    """Two rows of bars, one column a condition: bar and number the median over snapshots, dots the snapshots.

    Args:
        cosine: mean off-diagonal |cos|, by condition.
        top_1: top-1 weighted contribution mass, by condition.
        n_tasks: K; 1 / K is the least the mass can be.
        side: for the labels.
    """
    figure = Figure(figsize=(COLUMN_WIDTH, 3.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    labels = [label.replace("+", "\n+").strip() for label in cosine]
    for ax, values, name in ((upper, cosine, "mean off-diagonal |cos|"), (lower, top_1, "top-1 contribution mass")):
        for x, found in enumerate(values.values()):
            middle = float(np.median(found))
            ax.bar(x, middle, width=0.62, color="#88CCEE", gid="median")
            spots = x + np.linspace(-0.2, 0.2, len(found)) if len(found) > 1 else np.array([x])
            ax.plot(spots, found, ".", color="#332288", markersize=2.5, gid="snapshots")
            ax.annotate(f"{middle:.2f}", (x, max(middle, found.max())), (0, 4), textcoords="offset points", ha="center")
        ax.set_ylim(0, 1.22 * max(float(f.max()) for f in values.values()) + 0.02)
        ax.set_ylabel(f"{name},\n{side}")
    lower.axhline(1 / n_tasks, color="0.4", linewidth=0.6, linestyle=":", gid="fair")
    lower.annotate("1/K", (1, 1 / n_tasks), (2, 0), xycoords=("axes fraction", "data"), textcoords="offset points")
    lower.set_xticks(range(len(labels)), labels)
    return figure

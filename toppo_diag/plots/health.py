"""Health of the Gram across conditions (Figure D.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.style import COLUMN_WIDTH, Target, dress, paper_style, sheet, whole


@paper_style()
def health_figure(
    cosine: Mapping[str, Float[np.ndarray, "N"]],
    top_1: Mapping[str, Float[np.ndarray, "N"]],
    n_tasks: int,
    side: str,
    *,
    figure: Target | None = None,
) -> Figure:
    """The Figure with two rows of bars, one bar per condition.

    A bar and its number show the median over the minibatches. The dots show the minibatches, in the order of
    training, and the numbers in brackets their range.

    Args:
        cosine: mean off-diagonal |cos| by condition.
        top_1: largest task's part of all weighted contributions, by condition.
        n_tasks: K. The dotted line is at 1 / K, the least that this part can be.
        side: named group of shared parameters, such as "critic", for the labels.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    lines = [line for label in cosine for line in _wrapped(label).split("\n")]
    # a bar takes the room that the longest line of a label needs, and the axes those of their own labels
    needed = 0.6 + len(cosine) * (0.1 + 0.05 * max(map(len, lines)))
    target = sheet(figure, max(COLUMN_WIDTH, needed), 3.0)
    upper, lower = target.subplots(2, 1, sharex=True)
    for ax, values, name in ((upper, cosine, "mean off-diagonal |cos|"), (lower, top_1, "top-1 contribution mass")):
        draw_medians(ax, values)
        ax.set_ylabel(f"{name},\n{side}, median")
    lower.axhline(1 / n_tasks, color="0.4", linewidth=0.6, linestyle=":", gid="fair")
    lower.annotate("1/K", (1, 1 / n_tasks), (2, 0), xycoords=("axes fraction", "data"), textcoords="offset points")
    return whole(target)


@paper_style()
def draw_medians(ax: Axes, values: Mapping[str, Float[np.ndarray, "N"]]) -> Axes:
    """The given axes, with one bar per condition at the median, and a dot for each minibatch.

    Args:
        ax: to draw on.
        values: one number per minibatch, by condition. NaN is left out.
    """
    dress(ax)
    finite = [found[np.isfinite(found)] for found in values.values()]
    for x, found in enumerate(finite):
        if not len(found):
            continue
        middle = float(np.median(found))
        ax.bar(x, middle, width=0.62, color="#88CCEE", gid="median")
        spots = x + np.linspace(-0.2, 0.2, len(found)) if len(found) > 1 else np.array([x])
        size = 2.5 if len(found) <= 40 else 1.5
        ax.plot(spots, found, ".", color="#332288", markersize=size, gid="minibatches")
        above = (x, max(middle, found.max()))
        text = f"{middle:.2f}\n({found.min():.2f} to {found.max():.2f})" if len(found) > 1 else f"{middle:.2f}"
        ax.annotate(text, above, (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=5.5)
    most = max((float(found.max()) for found in finite if len(found)), default=0.8)
    ax.set_ylim(0, 1.35 * most + 0.02)
    ax.set_yticks([tick for tick in ax.get_yticks() if tick <= max(1, most)])  # above 1 is room for the numbers alone
    ax.set_xticks(range(len(values)), [_wrapped(label) for label in values])
    return ax


def _wrapped(label: str) -> str:
    """A condition with one intervention, or the run's name, on each line."""
    return label.replace("+", "\n+").replace(" (", "\n(").strip()

"""The steps that combiners make of the same Grams (the replay of Section D.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import (
    COSINE_MAP,
    DEAD,
    PAGE_WIDTH,
    Target,
    combiner_label,
    combiner_style,
    dress,
    fix_ticks,
    name_size,
    paper_style,
    sheet,
    whole,
)

_WORST = "$\\min_i \\cos(g_i, d)$,\nmedian, range"


@paper_style()
def replay_figure(
    combiners: Sequence[str],
    tasks: Sequence[str],
    cosine: Float[np.ndarray, "C K"],
    worst: Sequence[Float[np.ndarray, "N"]],
    side: str,
    *,
    figure: Target | None = None,
) -> Figure:
    """The Figure with the cosine between each task's gradient and each combiner's step d = J'w, and the worst cosines.

    Args:
        combiners: C specs, that is, names with options.
        tasks: K names.
        cosine: median over the minibatches; NaN for a dead task.
        worst: min_i cos(g_i, d) for each minibatch, by combiner. A dot shows its median, a line its range.
        side: named group of shared parameters, such as "critic", for the labels.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    longest = max(len(short(t)) for t in tasks)
    target = sheet(figure, PAGE_WIDTH, max(0.16 * len(combiners), 0.6) + 0.055 * longest + 0.6)
    left, right = target.subplots(1, 2, sharey=True, width_ratios=(4, 1.4))
    draw_cosines(left, combiners, tasks, cosine)
    bar = target.colorbar(left.images[0], ax=left, pad=0.01, fraction=0.03)
    bar.set_label("median $\\cos(g_i, d)$,\n" + side)
    fix_ticks(bar.ax)
    draw_worst_cosines(right, combiners, worst)
    right.tick_params(axis="y", length=0)
    return whole(target)


@paper_style()
def draw_cosines(ax: Axes, combiners: Sequence[str], tasks: Sequence[str], cosine: Float[np.ndarray, "C K"]) -> Axes:
    """The given axes, with cos(g_i, d) as a heatmap: a row per combiner, a column per task. Dead tasks are grey.

    `ax.figure.colorbar(ax.images[0], ax=ax)` adds a colour bar.

    Args:
        ax: to draw on.
        combiners: C specs.
        tasks: K names.
        cosine: of each task's gradient to each combiner's step; NaN for a dead task.
    """
    dress(ax).set_facecolor(DEAD)
    ax.imshow(np.ma.masked_invalid(cosine), cmap=COSINE_MAP, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(tasks)), [short(t) for t in tasks], rotation=90, fontsize=name_size(len(tasks)))
    ax.set_yticks(range(len(combiners)), [combiner_label(c) for c in combiners])
    return ax


@paper_style()
def draw_worst_cosines(ax: Axes, combiners: Sequence[str], worst: Sequence[Float[np.ndarray, "N"]]) -> Axes:
    """The given axes, with a row per combiner: min_i cos(g_i, d), median (dot) and range (line) over the minibatches.

    Args:
        ax: to draw on.
        combiners: C specs.
        worst: min_i cos(g_i, d) for each minibatch, by combiner; NaN is left out.
    """
    dress(ax)
    ax.set_ylim(len(combiners) - 0.5, -0.5)
    ax.set_yticks(range(len(combiners)), [combiner_label(c) for c in combiners])
    for y, (spec, found) in enumerate(zip(combiners, worst, strict=True)):
        finite = found[np.isfinite(found)]
        if not finite.size:
            continue
        low, middle, high = finite.min(), np.median(finite), finite.max()
        colour = combiner_style(spec)["color"]
        ax.plot([low, high], [y, y], color=colour, linewidth=1)
        ax.plot(middle, y, "o", color=colour, markersize=3.5, gid=spec, label=combiner_label(spec))
    ax.axvline(0, color="0.4", linewidth=0.6)
    ax.set_xlabel(_WORST)
    return ax

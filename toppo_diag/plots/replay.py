"""What combiners make of the same Grams (Section D.2's replay)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import COSINE_MAP, DEAD, PAGE_WIDTH, combiner_label, combiner_style


def replay_figure(
    combiners: Sequence[str],
    tasks: Sequence[str],
    cosine: Float[np.ndarray, "C K"],
    worst: Sequence[Float[np.ndarray, "N"]],
    side: str,
) -> Figure:
    """Left: median cosine of each task's gradient to each combiner's step. Right: that of the worst task, median and
    95 % of the minibatches.

    Args:
        combiners: C specs.
        tasks: K names.
        cosine: median over minibatches; NaN for a dead task.
        worst: min_i cos(g_i, d) of every minibatch, by combiner.
        side: for the labels.
    """
    k, n = len(tasks), len(combiners)
    size = 6 if k <= 15 else 4.5
    height = max(0.16 * n, 0.6) + 0.055 * max(len(short(t)) for t in tasks) + 0.6
    figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    grid, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1.4))
    grid.set_facecolor(DEAD)
    image = grid.imshow(
        np.ma.masked_invalid(cosine), cmap=COSINE_MAP, vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
    )
    grid.set_xticks(range(k), [short(t) for t in tasks], rotation=90, fontsize=size)
    grid.set_yticks(range(n), [combiner_label(c) for c in combiners])
    figure.colorbar(image, ax=grid, pad=0.01, fraction=0.03).set_label(rf"$\cos(g_i, d)$, {side}, median")
    for y, (spec, found) in enumerate(zip(combiners, worst, strict=True)):
        finite = found[np.isfinite(found)]
        if not finite.size:
            continue
        low, middle, high = np.quantile(finite, [0.025, 0.5, 0.975])
        colour = combiner_style(spec)["color"]
        right.plot([low, high], [y, y], color=colour, linewidth=1)
        right.plot(middle, y, "o", color=colour, markersize=3.5, gid=spec)
    right.axvline(0, color="0.4", linewidth=0.6)
    right.set_xlabel(r"worst task, $\min_i \cos(g_i, d)$")
    right.tick_params(axis="y", length=0)
    return figure

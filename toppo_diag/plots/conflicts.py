"""Conflicts between tasks over training, by pair and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toppo_diag.plots.names import short
from toppo_diag.plots.style import DEAD, PAGE_WIDTH, marker, steps_axis

SIDE_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_PAIR_MAP = "cividis"


def conflicts_figure(
    series: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    pairs: Mapping[str, Float[np.ndarray, "K K"]],
    layers: Mapping[str, Sequence[tuple[str, float]]],
    tasks: Sequence[str],
) -> Figure:
    """Above: the share of negative pairs and the effective rank over training, a line a side. Below, for each side: how
    often each pair is in conflict, and its layers by conflict score, where there are slabs.

    Args:
        series: side to (env_steps, share, effective rank).
        pairs: side to share of Grams in which the pair is in conflict; NaN where it never met.
        layers: side to (layer, score), highest first; sides without slabs are missing.
        tasks: K names.
    """
    k = len(tasks)
    size = 6 if k <= 15 else 4.5
    beside = 2 if k <= 15 else 1  # grids in a row: the labels of many tasks need the page's width
    names = (0.05 if k <= 15 else 0.038) * max(len(short(t)) for t in tasks)
    n_rows = -(-len(pairs) // beside)
    grid_height = (2.0 if k <= 15 else 0.075 * k) + names + 0.3
    deepest = max((len(found) for found in layers.values()), default=0)
    heights = [1.6, n_rows * grid_height, *([0.13 * deepest + 0.5] if deepest else [])]
    figure = Figure(figsize=(PAGE_WIDTH, sum(heights)), layout="constrained")
    rows = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])

    share, rank = rows[0].subplots(1, 2)
    for colour, (side, (steps, negative, effective)) in zip(SIDE_COLOURS, series.items(), strict=False):
        how = {"color": colour, **marker(len(steps)), "label": side, "gid": side}
        share.plot(steps, negative, **how)
        rank.plot(steps, effective, **how)
    share.set(ylabel="share of pairs\nwith cos < 0", ylim=(0, 1.15 * max(0.01, share.dataLim.y1)))
    rank.set(ylabel=f"effective rank\nof cosines (of {k})", ylim=(0, k * 1.05))
    share.legend()
    for ax in (share, rank):
        steps_axis(ax)

    grids: list[Axes] = list(rows[1].subplots(n_rows, beside, squeeze=False).flat)
    for ax in grids[len(pairs) :]:
        ax.set_axis_off()
    for n, (ax, (side, found)) in enumerate(zip(grids, pairs.items(), strict=False)):
        ax.set_facecolor(DEAD)
        image = ax.imshow(np.ma.masked_invalid(found), cmap=_PAIR_MAP, vmin=0, vmax=1, interpolation="nearest")
        ax.set_xticks(range(k), [short(t) for t in tasks], rotation=90, fontsize=size)
        ax.set_yticks(range(k), [short(t) for t in tasks] if n % beside == 0 else [], fontsize=size)
        ax.set_title(f"{side}: how often a pair is in conflict")
    rows[1].colorbar(image, ax=grids, shrink=0.8 / n_rows, pad=0.01).set_label("share of minibatches")

    if deepest:
        bars = rows[2].subplots(1, max(len(pairs), 2), squeeze=False)[0]
        for ax in bars[len(pairs) :]:
            ax.set_axis_off()
        for ax, colour, (side, scores) in zip(bars, SIDE_COLOURS, layers.items(), strict=False):
            ax.barh(range(len(scores)), [score for _, score in scores], color=colour, height=0.7)
            ax.set_yticks(range(len(scores)), [name for name, _ in scores])
            ax.invert_yaxis()
            ax.set_xlabel(f"{side}: conflict score of a layer")
    return figure

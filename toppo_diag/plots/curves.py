"""Learning curves, per-task panels and bars of success (Figures 1, 4, D.6 to D.10). Success rates in percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from toppo_diag.analysis.curves import Band, spread_out
from toppo_diag.analysis.runs import RUNGS
from toppo_diag.plots.names import short
from toppo_diag.plots.style import COLUMN_WIDTH, PAGE_WIDTH, legend_columns, legend_height, marker, steps_axis

Lines = Mapping[str, tuple[Int[np.ndarray, "S"], Band]]
"""Environment steps and what is drawn over them, by label."""

_SAID = {"std": "mean \u00b1 std", "sem": "mean \u00b1 SEM", "iqm": "IQM, 95% bootstrap interval"}
_RUNG_COLOURS = ("0.45", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00")
"""Okabe and Ito's, which the common kinds of colour blindness leave distinct; vanilla grey, TOPPO red, as there."""
_OTHER_COLOURS = ("#332288", "#88CCEE", "#999933", "#882255", "#117733", "#661100")
_RUNG_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-")
_LABEL_POINTS = 5.5
"""Font size of a baseline's name."""


@dataclass(frozen=True)
class Panel:
    """Curves of one benchmark and reward, and what others have published on it: percent, by name."""

    title: str
    lines: Lines
    baselines: Mapping[str, float]


def rung_styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each label: a rung of the paper looks the same in every figure, TOPPO is thicker."""
    styles: dict[str, dict[str, Any]] = {}
    for label in labels:
        if label in RUNGS:
            i = RUNGS.index(label)
            width = 1.3 if label == RUNGS[-1] else 0.9
            styles[label] = {"color": _RUNG_COLOURS[i], "linestyle": _RUNG_DASHES[i], "linewidth": width}
        else:
            i = sum(known not in RUNGS for known in styles)
            n = len(_OTHER_COLOURS)
            dashes = _RUNG_DASHES[i // n % len(_RUNG_DASHES)]
            styles[label] = {"color": _OTHER_COLOURS[i % n], "linestyle": dashes, "linewidth": 0.9}
    return styles


def success_figure(panels: Sequence[Panel], band: str) -> Figure:
    """One panel a benchmark and reward: success over all tasks against environment steps, and published numbers as
    marks at the right, wherever the curves end.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    width = COLUMN_WIDTH if len(panels) == 1 else PAGE_WIDTH
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(width, 2.5 * rows + legend_height(width, labels)), layout="constrained")
    axes = figure.subplots(rows, min(len(panels), 2), squeeze=False).ravel()
    looks = rung_styles(labels)
    for ax, panel in zip(axes, panels, strict=False):
        for label, (steps, drawn) in panel.lines.items():
            _draw(ax, steps, drawn, looks[label], label)
        ax.set_ylim(-2, 102)
        ax.set_ylabel(f"success rate (%), {_said(band, (drawn for _, drawn in panel.lines.values()))}")
        ax.set_title(panel.title)
        steps_axis(ax)
        _mark_baselines(ax, panel.baselines)
    for ax in axes[len(panels) :]:
        ax.remove()
    _legend(figure, labels, looks)
    return figure


def _said(band: str, drawn: Iterable[Band]) -> str:
    """What lines and bands are; with one seed there is nothing to spread."""
    return "one seed" if all(np.isnan(found.low).all() for found in drawn) else _SAID[band]


def _draw(
    ax: Axes, steps: Int[np.ndarray, "S"], drawn: Band, look: Mapping[str, Any], label: str, alpha: float = 0.15
) -> None:
    if not np.isnan(drawn.low).any():
        ax.fill_between(
            steps, drawn.low, drawn.high, color=look["color"], alpha=alpha, linewidth=0, gid=f"band {label}"
        )
    ax.plot(steps, drawn.centre, **look, **marker(len(steps)), gid=f"curve {label}")


def _mark_baselines(ax: Axes, baselines: Mapping[str, float]) -> None:
    """A diamond at each published number, just right of the panel, and its name beside it, moved where names would
    touch.
    """
    if not baselines:
        return
    heights = np.array(list(baselines.values()))
    # Panels are some 2.1 inches high inside: what a line of text takes there, in percent.
    gap = 1.25 * _LABEL_POINTS / 72 / 2.1 * 104
    places = spread_out(heights, gap, 0, 100)
    ax.annotate("published, full budget", (1.02, 1.03), xycoords="axes fraction", fontsize=_LABEL_POINTS, color="0.25")
    at = blended_transform_factory(ax.transAxes, ax.transData)
    for (name, height), place in zip(baselines.items(), places, strict=True):
        ax.plot(
            [1.03], [height], "D", color="0.25", markersize=2.2, transform=at, clip_on=False, gid=f"baseline {name}"
        )
        ax.plot([1.045, 1.09], [height, place], color="0.6", linewidth=0.4, transform=at, clip_on=False)
        ax.annotate(
            f"{name} {height:.1f}",
            (1.1, place),
            xycoords=at,
            va="center",
            fontsize=_LABEL_POINTS,
            annotation_clip=False,
            gid=f"name {name}",
        )


def per_task_figure(panels: Mapping[str, Lines], title: str, band: str) -> Figure:
    """One small panel a task, in the order given; steps and success share their axes."""
    labels = list(next(iter(panels.values())))
    looks = rung_styles(labels)
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    width = PAGE_WIDTH * (columns / 5 if columns > 2 else 0.48)
    height = (0.85 if rows > 2 else 1.25) * rows + 0.35 + legend_height(width, labels)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.015, w_pad=0.015, hspace=0.01, wspace=0.01)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (task, lines) in zip(axes, panels.items(), strict=False):
        for label, (steps, drawn) in lines.items():
            _draw(ax, steps, drawn, {**looks[label], "linewidth": 0.7, "markersize": 1.2}, label, alpha=0.1)
        ax.set_title(short(task), fontsize=6, pad=2)
        ax.set_gid(f"task {task}")
        steps_axis(ax)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("")
    axes[0].set_ylim(-4, 104)
    axes[0].set_yticks([0, 50, 100])
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[max(0, len(panels) - columns) : len(panels)]:  # the last panel of each column
        ax.xaxis.set_tick_params(labelbottom=True)
    # Of one panel: a label of the whole figure would lie on its legend.
    axes[len(panels) - 1 - (columns - 1) // 2].set_xlabel("environment steps")
    shown = (drawn for lines in panels.values() for _, drawn in lines.values())
    figure.supylabel(f"success rate (%), {_said(band, shown)}", fontsize=7)
    figure.suptitle(title, fontsize=7.5)
    _legend(figure, labels, looks)
    return figure


def worst_k_figure(
    bars: Mapping[str, Mapping[int, Band]], best: Mapping[int, tuple[str, float]], title: str, band: str
) -> Figure:
    """A group of bars a k, one bar a label, and over each group a line at the strongest published baseline.

    Args:
        bars: by label and k.
        best: name and percent of that baseline, by k.
        title: of the figure.
        band: of the bars' whiskers.
    """
    labels = list(bars)
    ks = list(bars[labels[0]])
    width = PAGE_WIDTH if len(labels) * len(ks) > 14 else COLUMN_WIDTH
    figure = Figure(figsize=(width, 2.4 + legend_height(width, labels)), layout="constrained")
    ax = figure.subplots()
    looks = rung_styles(labels)
    bar = 0.8 / len(labels)
    for n, label in enumerate(labels):
        for x, k in enumerate(ks):
            at = x + (n - (len(labels) - 1) / 2) * bar
            _bar(ax, at, bars[label][k], 0.9 * bar, looks[label], f"bar {label} {k}")
            if _top(bars[label][k]) == 0:  # a bar that cannot be seen
                ax.annotate("0", (at, 0), (0, 2), textcoords="offset points", ha="center", fontsize=5, color="0.3")
    for x, k in enumerate(ks):
        if k in best:
            name, height = best[k]
            ax.hlines(height, x - 0.45, x + 0.45, color="0.15", linestyle=(0, (3, 2)), linewidth=0.8, gid=f"best {k}")
            top = max(*(_top(bars[label][k]) for label in labels), height)
            said = f"{name} {height:.1f}" if height > 0 else "published 0.0"  # where many share the floor
            ax.annotate(said, (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=_LABEL_POINTS)
    ax.set_xticks(range(len(ks)), [f"{k} (all)" if k == ks[-1] else str(k) for k in ks])
    ax.set_xlabel("k")
    shown = (found for by_k in bars.values() for found in by_k.values())
    ax.set_ylabel(f"success of the k worst tasks (%),\n{_said(band, shown)}")
    ax.set_ylim(0, 112)
    ax.set_yticks(range(0, 101, 20))
    ax.set_title(title + ("\ndashed: strongest published baseline" if best else ""))
    _legend(figure, labels, looks, bars=True)
    return figure


def ladder_figure(
    bars: Mapping[str, Mapping[str, Band]], best: Mapping[str, tuple[str, float]], title: str, band: str
) -> Figure:
    """A panel a metric, a bar a label from top to bottom; dashed, the strongest published baseline (Figure 4).

    Args:
        bars: by metric and label.
        best: name and percent of that baseline, by metric.
        title: of the figure.
        band: of the bars' whiskers.
    """
    labels = list(next(iter(bars.values())))
    width = PAGE_WIDTH if len(bars) > 1 else COLUMN_WIDTH
    figure = Figure(figsize=(width, 0.24 * len(labels) + 1.1), layout="constrained")
    axes = figure.subplots(1, len(bars), sharey=True, squeeze=False)[0]
    looks = rung_styles(labels)
    for ax, (metric, by_label) in zip(axes, bars.items(), strict=True):
        for y, label in enumerate(labels):
            found = by_label[label]
            _bar(ax, y, found, 0.7, looks[label], f"bar {label} {metric}", upright=False)
            beside = blended_transform_factory(ax.transAxes, ax.transData)
            ax.annotate(f"{float(found.centre):.1f}", (1.02, y), xycoords=beside, va="center", fontsize=6)
        if metric in best:
            name, at = best[metric]
            ax.axvline(at, color="0.15", linestyle=(0, (3, 2)), linewidth=0.8, gid=f"best {metric}")
            ax.annotate(
                f"{name} {at:.1f}",
                (at, 1),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center" if 20 < at < 80 else "right" if at >= 80 else "left",
                fontsize=_LABEL_POINTS,
            )
        ax.set_xlim(0, 102)
        ax.set_xticks(range(0, 101, 20))
        ax.set_xlabel(f"{metric} success (%),\n{_said(band, by_label.values())}")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=7.5)
    return figure


def _top(found: Band) -> float:
    return float(np.nanmax([found.centre, found.high]))


def _bar(
    ax: Axes, at: float, found: Band, thick: float, look: Mapping[str, Any], gid: str, upright: bool = True
) -> None:
    """One bar with its whiskers, if it has any."""
    centre, colour = float(found.centre), look["color"]
    draw, whiskers = (ax.bar, ax.vlines) if upright else (ax.barh, ax.hlines)
    draw(at, centre, thick, color=colour, edgecolor=colour, linewidth=0.4, gid=gid)
    if not np.isnan(found.low):
        whiskers(at, max(0.0, float(found.low)), float(found.high), color="black", linewidth=0.6)


def _legend(figure: Figure, labels: Sequence[str], looks: Mapping[str, Mapping[str, Any]], bars: bool = False) -> None:
    thick = {"linewidth": 4, "linestyle": "-", "solid_capstyle": "butt"} if bars else {}
    handles = [Line2D([], [], label=label, **{**looks[label], **thick}) for label in labels]
    columns = min(len(labels), legend_columns(figure.get_size_inches()[0], labels))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)

"""Learning curves, panels per task and bars of success (Figures 1, 4, D.6 to D.10). Success rates are in percent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from toppo_diag.analysis.curves import Band, spread_out
from toppo_diag.analysis.runs import RUNGS
from toppo_diag.plots.names import short
from toppo_diag.plots.style import (
    COLUMN_WIDTH,
    ENVIRONMENT_STEPS,
    PAGE_WIDTH,
    Target,
    dress,
    legend_columns,
    legend_height,
    marker,
    panel_letters,
    paper_style,
    sheet,
    size_inches,
    steps_axis,
    whole,
)

Lines = Mapping[str, tuple[Int[np.ndarray, "S"], Band]]
"""Environment steps and the band over the seeds, by label."""
Styles = Mapping[str, Mapping[str, Any]]
"""Keywords of `Axes.plot` by label."""

_SAID = {
    "std": "mean \u00b1 std",
    "sem": "mean \u00b1 SEM",
    "iqm": "IQM, 95% bootstrap interval",
    "iqm-std": "IQM \u00b1 std",
}
_RUNG_COLOURS = ("0.45", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00")
"""Okabe and Ito's scheme, distinct under the common kinds of colour blindness. As in the paper, vanilla is grey and
TOPPO red."""
_OTHER_COLOURS = ("#332288", "#88CCEE", "#999933", "#882255", "#117733", "#661100")
_RUNG_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-")
_LABEL_POINTS = 5.5
"""Font size of a baseline's name."""
_PANEL_HEIGHT = 2.1
"""Approximate height of a success panel in a figure of its own, in inches, from the x axis to the title."""


@dataclass(frozen=True)
class Panel:
    """Curves of one benchmark and reward, and the numbers that others have published for it.

    Attributes:
        title: title of the panel.
        lines: curves by label.
        baselines: published success in percent, by name of the method.
        seeds: number of seeds by label, for the legend.
    """

    title: str
    lines: Lines
    baselines: Mapping[str, float]
    seeds: Mapping[str, int] = field(default_factory=dict)


def rung_styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and width for each label, as keywords of `Axes.plot`.

    A rung, that is a row of the paper's ladder from vanilla to TOPPO, looks the same in every figure. TOPPO is thicker.
    """
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


@paper_style()
def success_figure(panels: Sequence[Panel], band: str, *, figure: Target | None = None) -> Figure:
    """The Figure with one panel per benchmark and reward: success over all tasks against environment steps.

    Marks at the right show published numbers. They are reached at the methods' own budgets, not where the curves end.

    Args:
        panels: the panels to draw.
        band: out of `toppo_diag.analysis.curves.BANDS`, for the label.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    looks = rung_styles(labels)
    labels.sort(key=lambda label: label != RUNGS[-1])  # TOPPO first, the others in their order
    said = {label: f"{label}{_seeds(label, panels)}" for label in labels}
    width = COLUMN_WIDTH if len(panels) == 1 else PAGE_WIDTH
    rows = -(-len(panels) // 2)
    target = sheet(figure, width, 2.5 * rows + legend_height(width, list(said.values())))
    high = _PANEL_HEIGHT
    if figure is not None:
        width, height = size_inches(target)
        high = (height - legend_height(width, list(said.values()))) / rows - 0.4
    axes = target.subplots(rows, min(len(panels), 2), squeeze=False).ravel()
    for letter, ax, panel in zip(panel_letters(), axes, panels, strict=False):
        _draw_success(ax, panel.lines, band, panel.baselines, looks, high)
        ax.set_title(f"({letter}) {panel.title}" if len(panels) > 1 else panel.title)
    for ax in axes[len(panels) :]:
        ax.remove()
    _legend(target, list(said.values()), {said[label]: looks[label] for label in labels})
    return whole(target)


def _seeds(label: str, panels: Sequence[Panel]) -> str:
    """How many seeds a curve is over: one number, or one for each panel where they differ."""
    found = [str(panel.seeds[label]) for panel in panels if label in panel.seeds]
    return f" (n = {', '.join(found if len(set(found)) > 1 else found[:1])})" if found else ""


@paper_style()
def draw_success(
    ax: Axes, lines: Lines, band: str, baselines: Mapping[str, float] = {}, *, styles: Styles | None = None
) -> Axes:
    """The given axes, with one curve per label, its band over the seeds, and published numbers at the right.

    Args:
        ax: to draw on. The names of the baselines stand right of it.
        lines: curves by label.
        band: out of `toppo_diag.analysis.curves.BANDS`, for the label.
        baselines: published success in percent, by name of the method.
        styles: looks by label; those of `rung_styles` by default.
    """
    high = ax.get_window_extent().height / whole(ax.figure).dpi
    _draw_success(ax, lines, band, baselines, styles or rung_styles(list(lines)), high)
    return ax


def _draw_success(
    ax: Axes, lines: Lines, band: str, baselines: Mapping[str, float], looks: Styles, high: float
) -> None:
    dress(ax)
    for label, (steps, drawn) in lines.items():
        _draw(ax, steps, drawn, looks[label], label)
    ax.set_ylim(-2, 102)
    ax.set_ylabel(f"success rate (%), {_said(band, (drawn for _, drawn in lines.values()))}")
    steps_axis(ax, ENVIRONMENT_STEPS)
    _mark_baselines(ax, baselines, high)


def _said(band: str, drawn: Iterable[Band]) -> str:
    """The words on an axis for what a line and its band show. One seed has no band."""
    return "one seed" if all(np.isnan(found.low).all() for found in drawn) else _SAID[band]


def _draw(
    ax: Axes, steps: Int[np.ndarray, "S"], drawn: Band, look: Mapping[str, Any], label: str, alpha: float = 0.15
) -> None:
    if not np.isnan(drawn.low).any():
        ax.fill_between(
            steps, drawn.low, drawn.high, color=look["color"], alpha=alpha, linewidth=0, gid=f"band {label}"
        )
    ax.plot(steps, drawn.centre, **look, **marker(len(steps)), gid=f"curve {label}", label=label)


def _mark_baselines(ax: Axes, baselines: Mapping[str, float], high: float) -> None:
    """Draw a diamond at each published number, right of a panel `high` inches high, and its name beside the diamond.

    Names move apart where they would touch.
    """
    if not baselines:
        return
    heights = np.array(list(baselines.values()))
    gap = 1.25 * _LABEL_POINTS / 72 / high * 104  # a line of text, in percent
    places = spread_out(heights, gap, 0, 100)
    said = "published, full budget" + ("\n* more parameters" if any(name.endswith("*") for name in baselines) else "")
    ax.annotate(said, (1.02, 1.03), xycoords="axes fraction", fontsize=_LABEL_POINTS, color="0.25")
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


@paper_style()
def per_task_figure(panels: Mapping[str, Lines], title: str, band: str, *, figure: Target | None = None) -> Figure:
    """The Figure with one small panel per task. All panels share their axes.

    Args:
        panels: curves by task and label, in the order to draw them.
        title: of the figure.
        band: out of `toppo_diag.analysis.curves.BANDS`, for the label.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    labels = list(next(iter(panels.values())))
    looks = rung_styles(labels)
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    width = PAGE_WIDTH * (columns / 5 if columns > 2 else 0.48)
    height = (0.85 if rows > 2 else 1.25) * rows + 0.35 + legend_height(width, labels)
    target = sheet(figure, width, height)
    if figure is None:  # a given figure may hold more than these panels, so its spaces stay
        engine = whole(target).get_layout_engine()
        engine.set(h_pad=0.015, w_pad=0.015, hspace=0.01, wspace=0.01)  # type: ignore[union-attr,call-arg]
    axes = target.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, (task, lines) in zip(axes, panels.items(), strict=False):
        dress(ax)
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
    # The label belongs to one panel: a label of the whole figure would lie on its legend.
    axes[len(panels) - 1 - (columns - 1) // 2].set_xlabel(ENVIRONMENT_STEPS)
    shown = (drawn for lines in panels.values() for _, drawn in lines.values())
    target.supylabel(f"success rate (%), {_said(band, shown)}", fontsize=7)
    target.suptitle(title, fontsize=7.5)
    _legend(target, labels, looks)
    return whole(target)


@paper_style()
def worst_k_figure(
    bars: Mapping[str, Mapping[int, Band]],
    best: Mapping[int, tuple[str, float]],
    title: str,
    band: str,
    *,
    published: Mapping[str, Mapping[int, Band]] = {},
    figure: Target | None = None,
) -> Figure:
    """The Figure with the success of the k worst tasks: a group of bars per k, and one bar per label in it.

    The line over a group is at the strongest published baseline.

    Args:
        bars: by label and k.
        best: name and percent of the baseline, by k.
        title: of the figure.
        band: what the whiskers show; see `toppo_diag.analysis.curves.BANDS`.
        published: hatched bars of other methods beside ours, by name and k, with the published deviation.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    labels = [*bars, *published]
    width = PAGE_WIDTH if len(labels) * len(bars[labels[0]]) > 14 else COLUMN_WIDTH
    target = sheet(figure, width, 2.4 + legend_height(width, labels))
    ax = draw_worst_k(target.subplots(), bars, best, band, published=published)
    lines = [title, *_what_is_published(best, published)]
    ax.set_title("\n".join(lines if width < PAGE_WIDTH else [title, "; ".join(lines[1:])]).rstrip())
    _legend(target, labels, rung_styles(list(bars)) | _published_styles(published), bars=True)
    return whole(target)


def _what_is_published(best: Mapping[int, tuple[str, float]], published: Mapping[str, object]) -> list[str]:
    said = ["dashed: strongest published baseline"] * bool(best) + ["hatched: published"] * bool(published)
    said += ["* more parameters"] * any(name.endswith("*") for name in published)
    return said


def _published_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The looks of the bars of published methods: white, with a hatch of their own."""
    hatches = ("////", "....", "xxxx", "----", "++++")
    return {
        name: {"color": "0.35", "fill": "white", "hatch": hatches[i % len(hatches)]} for i, name in enumerate(names)
    }


@paper_style()
def draw_worst_k(
    ax: Axes,
    bars: Mapping[str, Mapping[int, Band]],
    best: Mapping[int, tuple[str, float]],
    band: str,
    *,
    published: Mapping[str, Mapping[int, Band]] = {},
) -> Axes:
    """The given axes, with a group of bars per k and one bar per label in it. See `worst_k_figure`.

    Args:
        ax: to draw on.
        bars: by label and k.
        best: name and percent of the strongest published baseline, by k.
        band: what the whiskers show; see `toppo_diag.analysis.curves.BANDS`.
        published: hatched bars of other methods beside ours, by name and k.
    """
    dress(ax)
    drawn = {**bars, **published}
    labels = list(drawn)
    ks = list(bars[labels[0]])
    looks = rung_styles(list(bars)) | _published_styles(published)
    bar = 0.8 / len(labels)
    for n, label in enumerate(labels):
        named = False
        for x, k in enumerate(ks):
            if k not in drawn[label]:
                continue
            at = x + (n - (len(labels) - 1) / 2) * bar
            name = "" if named else label  # once in a legend
            named = True
            _bar(ax, at, drawn[label][k], 0.9 * bar, looks[label], f"bar {label} {k}", name)
            if _top(drawn[label][k]) == 0:  # a bar that cannot be seen
                ax.annotate("0", (at, 0), (0, 2), textcoords="offset points", ha="center", fontsize=5, color="0.3")
    for x, k in enumerate(ks):
        if k in best:
            name, height = best[k]
            ax.hlines(height, x - 0.45, x + 0.45, color="0.15", linestyle=(0, (3, 2)), linewidth=0.8, gid=f"best {k}")
            said = f"{name} {height:.1f}" if height > 0 else "published 0.0"  # many methods share the floor
            ax.annotate(
                said,
                (x, height),
                (0, 2.5),
                textcoords="offset points",
                ha="center",
                fontsize=_LABEL_POINTS,
                bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.6},  # it may lie on bars
            )
    ax.set_xticks(range(len(ks)), [f"{k} (all)" if k == ks[-1] else str(k) for k in ks])
    ax.set_xlabel("k")
    shown = (found for by_k in bars.values() for found in by_k.values())
    ax.set_ylabel(f"success of the k worst tasks (%),\n{_said(band, shown)}")
    ax.set_ylim(0, 112)
    ax.set_yticks(range(0, 101, 20))
    return ax


@paper_style()
def ladder_figure(
    bars: Mapping[str, Mapping[str, Band]],
    best: Mapping[str, tuple[str, float]],
    title: str,
    band: str,
    *,
    figure: Target | None = None,
) -> Figure:
    """The Figure with one panel per metric, and one bar per label from top to bottom (Figure 4).

    The dashed line is at the strongest published baseline.

    Args:
        bars: by metric and label.
        best: name and percent of the baseline, by metric.
        title: of the figure.
        band: what the whiskers show; see `toppo_diag.analysis.curves.BANDS`.
        figure: Figure or SubFigure to draw on; None makes one.
    """
    labels = list(next(iter(bars.values())))
    width = PAGE_WIDTH if len(bars) > 1 else COLUMN_WIDTH
    target = sheet(figure, width, 0.24 * len(labels) + 1.1)
    axes = target.subplots(1, len(bars), sharey=True, squeeze=False)[0]
    for ax, (metric, by_label) in zip(axes, bars.items(), strict=True):
        _draw_ladder(dress(ax), metric, {label: by_label[label] for label in labels}, best.get(metric), band)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    target.suptitle(title, fontsize=7.5)
    return whole(target)


@paper_style()
def draw_ladder(ax: Axes, metric: str, by_label: Mapping[str, Band], best: tuple[str, float] | None, band: str) -> Axes:
    """The given axes, with one bar per label from top to bottom. See `ladder_figure`.

    Args:
        ax: to draw on.
        metric: name of the numbers, such as "final mean", for the label.
        by_label: bars.
        best: name and percent of the strongest published baseline, or None.
        band: what the whiskers show; see `toppo_diag.analysis.curves.BANDS`.
    """
    _draw_ladder(dress(ax), metric, by_label, best, band)
    ax.set_yticks(range(len(by_label)), list(by_label))
    ax.invert_yaxis()
    return ax


def _draw_ladder(
    ax: Axes, metric: str, by_label: Mapping[str, Band], best: tuple[str, float] | None, band: str
) -> None:
    looks = rung_styles(list(by_label))
    for y, (label, found) in enumerate(by_label.items()):
        _bar(ax, y, found, 0.7, looks[label], f"bar {label} {metric}", label, upright=False)
        ax.annotate(
            f"{float(found.centre):.1f}",
            (_top(found), y),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
            bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.4},  # the dashed line may cross it
        )
    if best is not None:
        name, at = best
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
    ax.set_xlim(0, 116)  # room for the number of a full bar
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel(f"{metric} success (%),\n{_said(band, by_label.values())}")


def _top(found: Band) -> float:
    return float(np.nanmax([found.centre, found.high]))


def _bar(
    ax: Axes,
    at: float,
    found: Band,
    thick: float,
    look: Mapping[str, Any],
    gid: str,
    label: str,
    upright: bool = True,
) -> None:
    """Draw one bar, and its whiskers where there are several seeds."""
    centre, colour = float(found.centre), look["color"]
    draw, whiskers = (ax.bar, ax.vlines) if upright else (ax.barh, ax.hlines)
    filling = {"color": look.get("fill", colour), "edgecolor": colour, "hatch": look.get("hatch")}
    draw(at, centre, thick, **filling, linewidth=0.4, gid=gid, label=label)
    if not np.isnan(found.low):
        whiskers(at, max(0.0, float(found.low)), float(found.high), color="black", linewidth=0.6)


def _legend(target: Target, labels: Sequence[str], looks: Styles, bars: bool = False) -> None:
    thick = {"linewidth": 4, "linestyle": "-", "solid_capstyle": "butt"} if bars else {}
    handles = [
        Patch(facecolor=look["fill"], edgecolor=look["color"], hatch=look["hatch"], linewidth=0.4, label=label)
        if "hatch" in look
        else Line2D([], [], label=label, **{**look, **thick})
        for label, look in ((label, looks[label]) for label in labels)
    ]
    columns = min(len(labels), legend_columns(size_inches(target)[0], labels))
    target.legend(handles=handles, loc="outside lower center", ncols=columns)

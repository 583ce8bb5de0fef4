"""What the figures draw: the numbers they are given, the dead as dead, and labels that can be read. On any target, and
whatever settings the caller has.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text

import toppo_diag
from tests.diag import runs
from toppo_diag import plots
from toppo_diag.analysis.conflicts import ConflictSeries, LayerConflict, conflict_series
from toppo_diag.analysis.curves import Band
from toppo_diag.analysis.heatmap import Panel, gram_panel, typical_panel
from toppo_diag.analysis.invariance import Perturbation, Sweep
from toppo_diag.analysis.norms import NormSeries
from toppo_diag.analysis.runs import RUNGS
from toppo_diag.analysis.series import Ranged
from toppo_diag.analysis.typical import Typical
from toppo_diag.plots.conflicts import conflicts_figure
from toppo_diag.plots.contributions import contributions_figure
from toppo_diag.plots.curves import Panel as Curves
from toppo_diag.plots.health import health_figure
from toppo_diag.plots.heatmap import heatmap_figure
from toppo_diag.plots.invariance import FACTORS, SIGMAS, invariance_figure
from toppo_diag.plots.names import METAWORLD
from toppo_diag.plots.norms import norms_figure
from toppo_diag.plots.replay import replay_figure
from toppo_diag.plots.style import (
    COLUMN_WIDTH,
    DEAD,
    PAGE_WIDTH,
    combiner_style,
    figure_bytes,
    log_axis,
    panel_letters,
    paper_style,
    save_figure,
    task_styles,
    undrawn,
)
from toppo_diag.plots.trap import trap_figure

STEPS = np.arange(1, 7) * 500_000


def names(k: int) -> tuple[str, ...]:
    return tuple(f"{name}-v3" for name in METAWORLD[:k])


def line(ax: Axes, gid: str) -> np.ndarray:
    (found,) = (artist for artist in ax.lines if artist.get_gid() == gid)
    return np.asarray(found.get_ydata(), dtype=float)


def assert_legible(figure: Figure, least: float = 4.0) -> None:
    """Every text lies within the figure and is large enough; the tick labels of an axis do not overlap."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    ticks = [ticks for ax in figure.findobj(Axes) for axis in ("x", "y") for ticks in tick_labels(ax, axis)]
    drawn = [text for labels, _ in ticks for text in labels]
    undrawn = {id(text) for _, labels in ticks for text in labels}
    drawn += [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and id(t) not in undrawn]
    frame = figure.bbox.padded(2)
    for text in drawn:
        box = text.get_window_extent(renderer)
        assert text.get_fontsize() >= least, text.get_text()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, (text.get_text(), box)
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1, (text.get_text(), box)
    for labels, _ in ticks:
        boxes = [text.get_window_extent(renderer) for text in labels]
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                overlap = min(min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0))
                # a few tenths of a pixel of a 150 dpi picture, which a font's own bearing leaves empty
                assert overlap <= 0.5, ([t.get_text() for t in labels], overlap)


def tick_labels(ax: Axes, which: str) -> Iterator[tuple[list[Text], list[Text]]]:
    """The labels of an axis that are drawn, and those that are not: matplotlib keeps some beyond the limits."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = sorted(axis.get_view_interval())
    drawn, undrawn = [], []
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        shown = ax.axison and tick.label1.get_visible() and low <= tick.get_loc() <= high
        (drawn if shown and tick.label1.get_text() else undrawn).append(tick.label1)
        undrawn.append(tick.label2)
    undrawn += drawn  # handled by the caller as drawn
    yield drawn, undrawn


def series(k: int, dead: int = -1) -> NormSeries:
    norms = np.exp(np.random.default_rng(k).normal(size=(6, k)))
    if dead >= 0:
        norms[:, dead] = 0
    typical = {"spread": Typical(20.0, 10.0, 2e5, 6)}
    spread = Ranged(*(np.full(6, value) for value in (20.0, 10.0, 2e5)))
    lengths = [Ranged(values, values / 2, values * 2) for values in (norms, norms.mean(axis=1) / 3, np.full(6, k**0.5))]
    return NormSeries(STEPS, *lengths, spread, typical)


@pytest.mark.parametrize("k", [3, 50])
def test_norms(k: int):
    both = {"critic": series(k, dead=1), "actor": series(k, dead=1)}
    figure = norms_figure(both, names(k), ["critic"])
    assert figure.get_figwidth() == PAGE_WIDTH
    critic, actor = figure.axes
    for i, task in enumerate(names(k)):
        drawn = line(critic, f"task {task}")
        if i == 1:
            assert np.isnan(drawn).all()
            (crosses,) = (a for a in critic.lines if a.get_gid() == f"dead {task}")
            assert to_hex(crosses.get_color()) == to_hex(DEAD)
        else:
            np.testing.assert_array_equal(drawn, both["critic"].norms.median[:, i])
    np.testing.assert_array_equal(line(critic, "mean"), both["critic"].mean_norm.median)
    np.testing.assert_array_equal(line(critic, "fairgrad"), np.full(6, np.sqrt(k)))
    assert not [a for a in actor.lines if a.get_gid() == "fairgrad"]  # Figure 2 (b)
    assert "20\u00d7" in critic.get_title()
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "push (dead)" in legend
    assert_legible(figure)


@pytest.mark.parametrize("k", [3, 50])
def test_contributions(k: int):
    panels = {
        c: series(k).norms.median * n for n, c in enumerate(("raw, mean", "+PopArt, mean", "raw, FG", "+PopArt, FG"), 1)
    }
    figure = contributions_figure(STEPS, panels, dict.fromkeys(panels, Typical(274.0, 8.5, 1e5, 9)), names(k))
    for ax, values in zip(figure.axes, panels.values(), strict=True):
        for i, task in enumerate(names(k)):
            np.testing.assert_array_equal(line(ax, f"task {task}"), values[:, i])
        assert "274\u00d7" in ax.get_title()
    assert_legible(figure)


def test_health():
    cosine = {c: np.array([0.3, 0.2, 0.4]) + n for n, c in enumerate(("vanilla", "+PopArt", "+PopArt+LN"))}
    figure = health_figure(cosine, cosine, 10, "critic")
    assert figure.get_figwidth() == COLUMN_WIDTH
    upper, _ = figure.axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx([0.3, 1.3, 2.3])  # medians
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), [0.3, 0.2, 0.4])
    assert_legible(figure)


def test_invariance():
    specs = ["fairgrad:alpha=1", "mean"]
    sweeps = {s: Sweep(np.full(len(FACTORS), 1.0 - n), np.full(len(FACTORS), 1e-16 + n)) for n, s in enumerate(specs)}
    flat = np.ones(len(SIGMAS))
    bands = {s: Perturbation(flat, flat - 0.1, flat) for s in specs}
    found = {"fairgrad:alpha=1": (STEPS, np.full(6, 1e-16)), "fairgrad-paper": (STEPS, np.full(6, 1e-2))}
    figure = invariance_figure(sweeps, bands, found, 1e-12)
    np.testing.assert_array_equal(line(figure.axes[0], "mean"), sweeps["mean"].cosine)
    np.testing.assert_array_equal(line(figure.axes[1], "fairgrad:alpha=1"), sweeps["fairgrad:alpha=1"].distance)
    np.testing.assert_array_equal(line(figure.axes[3], "fairgrad-paper"), np.full(6, 1e-2))
    np.testing.assert_array_equal(line(figure.axes[3], "tol"), [1e-12, 1e-12])
    assert_legible(figure)
    assert len(invariance_figure(sweeps, bands, {}, 1e-12).axes) == 3


@pytest.mark.parametrize("k", [4, 50])
def test_replay(k: int):
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-1, 1, (3, k))
    cosine[:, 2] = np.nan
    worst = [rng.uniform(-1, 1, 7), np.full(7, np.nan), rng.uniform(-1, 1, 7)]
    figure = replay_figure(["fairgrad:alpha=1", "mean", "mgda"], names(k), cosine, worst, "critic")
    image = figure.axes[0].images[0]
    drawn = image.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(drawn), np.isnan(cosine))
    np.testing.assert_array_equal(drawn.compressed(), cosine[np.isfinite(cosine)])
    assert image.get_clim() == (-1, 1)
    (dot,) = (a for a in figure.axes[1].lines if a.get_gid() == "mgda")
    assert dot.get_xdata()[0] == np.median(worst[2])
    assert_legible(figure)


LAYERS = [
    LayerConflict("encoder.layers.11.self_attention.projection.weight", 0.5, 0.2, 0.5, (0, 1)),
    LayerConflict("0.bias", 0.25, 1e-9, 0.5, (0, 1)),
    LayerConflict("head", 0.0, 0.4, 0.0, (1,)),
]


def conflicting(k: int) -> ConflictSeries:
    J = np.random.default_rng(0).standard_normal((12, k, 60))
    return conflict_series(np.repeat(STEPS, 2), J @ J.swapaxes(1, 2))


@pytest.mark.parametrize("k", [4, 50])
def test_conflicts(k: int):
    found = conflicting(k)
    figure = conflicts_figure(dict.fromkeys(("actor", "critic"), found), {"critic": LAYERS}, names(k), axis="batches")
    share, rank = figure.axes[:2]
    np.testing.assert_array_equal(line(share, "critic"), found.share)
    np.testing.assert_array_equal(line(share, "critic by sign"), found.negative)
    np.testing.assert_array_equal(line(rank, "actor"), found.effective_rank.median)
    assert share.get_xlabel() == "batches"
    grids = [ax for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (k, k)]
    assert len(grids) == 2
    drawn = found.found.share
    np.testing.assert_array_equal(grids[0].images[0].get_array().compressed(), drawn[np.isfinite(drawn)])
    (bars,) = (ax for ax in figure.axes if "conflict that a layer brings" in ax.get_xlabel())
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.25]  # no head: one task alone reaches it
    assert bars.get_window_extent().width > figure.bbox.width / 2  # whatever the length of the names
    assert_legible(figure)


@pytest.mark.parametrize("k", [4, 50])
def test_trap(k: int):
    rng = np.random.default_rng(0)
    shares, success = rng.normal(size=(6, k)) / k, rng.random((6, k))
    starved = names(k)[:2]
    figure = trap_figure(STEPS, shares, success, starved, 0.1 / k, names(k), "critic")
    for i, task in enumerate(names(k)):
        np.testing.assert_array_equal(line(figure.axes[0], f"task {task}"), shares[:, i])
        np.testing.assert_array_equal(line(figure.axes[1], f"task {task}"), success[:, i])
    widths = {a.get_gid(): a.get_linewidth() for a in figure.axes[0].lines}
    assert widths[f"task {starved[0]}"] > widths[f"task {names(k)[2]}"]
    assert "reach, push" in figure.axes[0].get_title()
    assert_legible(figure)


@pytest.mark.parametrize(("k", "columns"), [(3, 1), (10, 4), (50, 2)])
def test_heatmaps_stay_legible(k: int, columns: int):
    panel = a_panel(k)
    conditions = ["vanilla", "+PopArt", "+LN", "+PopArt+LN"][:columns]
    stages = {"early": "early, 0.5M steps", "late": "late, 8M steps"}
    panels = {(s, c): panel for s in stages for c in conditions}
    assert_legible(heatmap_figure(panels, stages, conditions, "critic"))


def test_a_task_and_a_combiner_look_the_same_everywhere():
    few, all_of_them = task_styles(("push-v3", "reach-v3")), task_styles(names(50))
    assert few["push-v3"] == all_of_them["push-v3"]
    assert len({(s["color"], str(s["linestyle"])) for s in all_of_them.values()}) == 50
    mixed = task_styles(("digit 0", "digit 1", "reach-v3"))
    assert len({(s["color"], str(s["linestyle"])) for s in mixed.values()}) == 3
    assert combiner_style("fairgrad") == combiner_style("fairgrad:alpha=1") != combiner_style("fairgrad:alpha=2")
    assert combiner_style("cagrad") == combiner_style("cagrad:c=0.4")


def a_panel(k: int) -> Panel:
    J = np.random.default_rng(0).standard_normal((k, 80)) * np.logspace(-2, 2, k)[:, None]
    J[1] = 0
    return typical_panel(np.stack([J @ J.T, 4 * J @ J.T, J[:, :40] @ J[:, :40].T]), names(k))


def a_band(level: float) -> Band:
    centre = level * np.linspace(0, 1, 6)
    return Band(centre, np.maximum(centre - 5, 0), centre + 5)


def pictures(k: int) -> dict[str, Callable[..., Figure]]:
    """Every `..._figure`, ready to be called with `figure=` or nothing."""
    rng = np.random.default_rng(0)
    tasks, sides = names(k), ("critic", "actor")
    shares = rng.dirichlet(np.ones(k), 6)
    flat = np.ones(len(SIGMAS))
    specs = ["fairgrad:alpha=1", "mean", "pcgrad"]
    panel = a_panel(k)
    spreads = dict.fromkeys(("raw", "+FG"), Typical(3.0, 1.5, 2e6, 9))
    stages = {"early": "early, 0.5M steps", "late": "late, 8M steps"}
    lines = {label: (STEPS, a_band(10.0 * n)) for n, label in enumerate(RUNGS)}
    bars = {
        label: {5: Band(*map(np.array, (5.0 * n, n, 9.0 * n))), k: Band(*map(np.array, (9.0 * n, n, 9.5 * n)))}
        for n, label in enumerate(RUNGS)
    }
    arguments = {
        "heatmap_figure": ({(s, c): panel for s in stages for c in ("raw", "+LN")}, stages, ["raw", "+LN"], "critic"),
        "norms_figure": ({side: series(k, dead=1) for side in sides}, tasks, ["critic"]),
        "contributions_figure": (
            STEPS,
            {"raw": shares, "+FG": 3 * shares},
            spreads,
            tasks,
        ),
        "health_figure": ({c: rng.random(6) for c in ("vanilla", "+LN")},) * 2 + (k, "critic"),
        "invariance_figure": (
            {s: Sweep(rng.random(len(FACTORS)), rng.random(len(FACTORS))) for s in specs},
            {s: Perturbation(flat, flat - 0.1, flat) for s in specs},
            {"fairgrad:alpha=1": (STEPS, np.full(6, 1e-16)), "fairgrad-paper": (STEPS, np.full(6, 1e-2))},
            1e-12,
        ),
        "replay_figure": (specs, tasks, rng.uniform(-1, 1, (3, k)), list(rng.uniform(-1, 1, (3, 7))), "critic"),
        "conflicts_figure": (
            dict.fromkeys(sides, conflicting(k)),
            {"critic": LAYERS},
            tasks,
        ),
        "trap_figure": (STEPS, shares - 0.1, shares, tasks[:2], 0.1 / k, tasks, "critic"),
        "weights_figure": (dict.fromkeys(sides, (STEPS, shares)), dict.fromkeys(sides, "pcgrad"), tasks, 10),
        "success_figure": ([Curves("MT10", lines, {"MOORE": 86.0, "ARS": 60.0})], "std"),
        "per_task_figure": (dict.fromkeys(tasks, lines), "MT10", "std"),
        "worst_k_figure": (bars, {k: ("ARS", 65.0)}, "MT10", "std"),
        "ladder_figure": ({"final mean": {label: b[k] for label, b in bars.items()}}, {}, "MT10", "std"),
    }

    def bound(name: str) -> Callable[..., Figure]:
        return lambda **target: getattr(plots, name)(*arguments[name], **target)

    return {name: bound(name) for name in arguments}


def draws(k: int) -> dict[str, Callable[[Axes], Axes]]:
    """Every `draw_...` function, ready to be called with axes."""
    rng = np.random.default_rng(0)
    tasks, values = names(k), rng.random((6, k))
    specs = ["fairgrad:alpha=1", "mean"]
    lines = {label: (STEPS, a_band(10.0 * n)) for n, label in enumerate(RUNGS)}
    bars = {label: {5: Band(*map(np.array, (5.0 * n, n, 9.0 * n)))} for n, label in enumerate(RUNGS)}
    arguments = {
        "draw_gram": (a_panel(k),),
        "draw_shares": (a_panel(k),),
        "draw_norms": (series(k), tasks),
        "draw_contributions": (STEPS, values, tasks),
        "draw_medians": ({"vanilla": values[0], "+LN": values[1]},),
        "draw_realised": ({"fairgrad:alpha=1": (STEPS, values[:, 0])}, 1e-12),
        "draw_cosines": (specs, tasks, values[:2]),
        "draw_worst_cosines": (specs, list(values[:2])),
        "draw_pairs": (rng.random((k, k)), tasks),
        "draw_layers": (LAYERS,),
        "draw_direction_shares": (STEPS, values, tasks[:1], 0.1 / k, tasks),
        "draw_weights": (STEPS, values, tasks),
        "draw_success": (lines, "std", {"MOORE": 86.0}),
        "draw_worst_k": (bars, {5: ("ARS", 65.0)}, "std"),
        "draw_ladder": ("final mean", {label: b[5] for label, b in bars.items()}, ("ARS", 65.0), "std"),
    }

    def bound(name: str) -> Callable[[Axes], Axes]:
        return lambda ax: getattr(plots, name)(ax, *arguments[name])

    return {name: bound(name) for name in arguments}


def content(ax: Axes) -> list[np.ndarray]:
    """The numbers that axes show: lines, images, bars and bands."""
    found = [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines]
    found += [np.ma.filled(image.get_array(), np.nan) for image in ax.images]
    found += [patch.get_path().vertices @ patch.get_patch_transform().get_matrix()[:2, :2] for patch in ax.patches]
    return found + [path.vertices for collection in ax.collections for path in collection.get_paths()]


def assert_same_content(ours: list[Axes], theirs: list[Axes]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.get_title() == b.get_title()
        assert (a.get_xlabel(), a.get_ylabel()) == (b.get_xlabel(), b.get_ylabel())
        assert len(content(a)) == len(content(b))
        for left, right in zip(content(a), content(b), strict=True):
            np.testing.assert_array_equal(left, right)


def middle_of(width: float, height: float, layout: str | None = "constrained") -> SubFigure:
    """An empty part of a figure, this large in inches, with an inch of white around it."""
    figure = Figure(figsize=(width + 2, height + 2), dpi=80, layout=layout)
    parts = figure.subfigures(3, 3, width_ratios=(1, width, 1), height_ratios=(1, height, 1), wspace=0, hspace=0)
    return parts[1, 1]


def drawn_part(target: SubFigure) -> tuple[float, float]:
    """Width and height of what is drawn in a `middle_of` a figure, as fractions of it. Nothing is drawn outside."""
    figure = target.get_figure(root=True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    inked = (np.asarray(canvas.buffer_rgba())[::-1, :, :3] < 255).any(axis=2)
    frame = target.bbox
    outside = inked.copy()
    outside[int(frame.y0) : int(frame.y1) + 1, int(frame.x0) : int(frame.x1) + 1] = False
    assert not outside.any(), np.argwhere(outside)
    return inked.any(axis=0).sum() / frame.width, inked.any(axis=1).sum() / frame.height


THEME = {
    "axes.facecolor": "#EAEAF2",
    "axes.grid": True,
    "axes.linewidth": 3,
    "axes.spines.top": True,
    "figure.facecolor": "black",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans Mono"],
    "font.size": 20,
    "legend.frameon": True,
    "lines.linewidth": 5,
    "savefig.facecolor": "black",
    "text.color": "red",
    "xtick.color": "red",
    "xtick.direction": "in",
    "xtick.labelsize": 20,
    "xtick.major.size": 12,
    "ytick.major.width": 4,
}
"""Settings that a notebook may have made."""


def test_every_function_is_tried_here():
    assert {*pictures(4), *draws(4), "paper_style", "save_figure"} == set(plots.__all__) == set(dir(plots))


@pytest.mark.parametrize("name", pictures(4))
def test_a_picture_in_a_subfigure(name: str):
    draw = pictures(4)[name]
    alone = draw()
    target = middle_of(7, 5.5)
    figure = target.get_figure(root=True)
    settings = dict(mpl.rcParams)
    assert draw(figure=target) is figure
    assert dict(mpl.rcParams) == settings
    assert_same_content(figure.axes, alone.axes)
    assert len(target.legends) == len(alone.legends)
    part = drawn_part(target)
    assert max(part) > 0.85
    assert min(part) > 0.85 or name == "heatmap_figure"  # its grids are square


@pytest.mark.parametrize("name", ["conflicts_figure", "heatmap_figure", "norms_figure", "replay_figure"])
def test_a_picture_in_a_narrow_subfigure(name: str):
    target = middle_of(4.2, 6)
    pictures(10)[name](figure=target)
    drawn_part(target)
    titles = [ax.title.get_window_extent() for ax in target.get_figure(root=True).axes if ax.get_title()]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[i + 1 :])
    lines = [line for text in target.findobj(Text) for line in text.get_text().split("\n")]
    assert all(line.count("$") % 2 == 0 for line in lines)  # no formula is broken


@pytest.mark.parametrize("name", ["norms_figure", "heatmap_figure", "conflicts_figure"])
def test_a_picture_in_a_figure_without_layout(name: str):
    figure = Figure(figsize=(7, 6))
    assert pictures(4)[name](figure=figure) is figure
    assert figure.get_size_inches().tolist() == [7, 6]
    assert_legible(figure)


@pytest.mark.parametrize("name", pictures(4))
def test_a_picture_looks_the_same_whatever_the_settings(name: str):
    draw = pictures(4)[name]
    with paper_style():
        expected = draw()
        FigureCanvasAgg(expected).draw()
    with mpl.rc_context(THEME):
        settings = dict(mpl.rcParams)
        themed = draw()
        FigureCanvasAgg(themed).draw()  # a notebook shows it
        content = figure_bytes(themed, "svg")
        assert dict(mpl.rcParams) == settings
    assert content == figure_bytes(expected, "svg")


@pytest.mark.parametrize("name", draws(4))
def test_a_panel_in_given_axes(name: str):
    draw = draws(4)[name]
    with paper_style():
        expected = Figure(figsize=(4, 3), layout="constrained").subplots()
    draw(expected)
    with mpl.rc_context(THEME | {"axes.facecolor": "white", "axes.grid": False}):
        figure = Figure(figsize=(9, 3), layout="constrained")
        beside, ax = figure.subplots(1, 2)
        settings = dict(mpl.rcParams)
        assert draw(ax) is ax
        assert dict(mpl.rcParams) == settings
    assert figure.axes == [beside, ax]
    assert not content(beside) and not beside.texts
    assert not figure.texts and not figure.legends
    assert_same_content([ax], [expected])
    FigureCanvasAgg(figure).draw()
    FigureCanvasAgg(expected.figure).draw()
    for axis, known in ((ax.xaxis, expected.xaxis), (ax.yaxis, expected.yaxis)):
        assert axis.label.get_fontsize() == known.label.get_fontsize()
        tick, like = axis.get_major_ticks(1)[0], known.get_major_ticks(1)[0]
        assert tick.label1.get_fontsize() == like.label1.get_fontsize()
        assert tick.label1.get_fontfamily() == like.label1.get_fontfamily()
        assert tick.tick1line.get_markersize() == like.tick1line.get_markersize()
    assert not ax.spines["top"].get_visible()
    frame = ax.get_tightbbox()
    assert beside.get_tightbbox().x1 <= frame.x0 and frame.x1 <= figure.bbox.x1 + 3


def test_a_legend_where_one_is_wanted():
    for name in ("draw_norms", "draw_weights", "draw_success", "draw_worst_k"):
        ax = draws(3)[name](Figure().subplots())
        shown = [text.get_text() for text in ax.legend().get_texts()]
        known = RUNGS if name in ("draw_success", "draw_worst_k") else [t.removesuffix("-v3") for t in names(3)]
        assert [label for label in shown if label in known] == list(known)


@pytest.mark.parametrize(
    ("k", "size"), [(3, (5, 3)), (10, (9, 6)), (10, (8, 2.5)), (10, (2, 2)), (50, (9, 6)), (50, (4, 6))]
)
def test_heatmaps_take_the_space_they_are_given(k: int, size: tuple[float, float]):
    target = middle_of(*size, layout=None)
    panels = {("early", c): a_panel(k) for c in ("raw", "+LN")}
    heatmap_figure(panels, {"early": "early, 0.5M steps"}, ["raw", "+LN"], "critic", figure=target)
    assert max(drawn_part(target)) > 0.8
    assert_legible(target.get_figure(root=True), least=0)
    for ax in target.axes:
        if ax.images:
            assert ax.bbox.width == pytest.approx(ax.bbox.height)


def test_a_title_of_the_whole_figure_leaves_bars_over_their_grid():
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subfigures(1, 2)
    pictures(4)["heatmap_figure"](figure=left)
    pictures(4)["norms_figure"](figure=right)
    figure.suptitle("two pictures")
    FigureCanvasAgg(figure).draw()
    grids = [ax for ax in left.axes if len(ax.images) == 2]
    bars = [ax for ax in left.axes if ax.get_yscale() == "log"]
    assert len(grids) == len(bars) == 4
    for grid, above in zip(grids, bars, strict=True):
        assert (grid.bbox.x0, grid.bbox.x1) == pytest.approx((above.bbox.x0, above.bbox.x1))


def test_saved_files(tmp_path: Path):
    draw = pictures(3)["norms_figure"]
    files = save_figure(draw(), tmp_path / "new" / "norms.v2", ("pdf", "png"))
    assert files == [tmp_path / "new" / "norms.v2.pdf", tmp_path / "new" / "norms.v2.png"]
    pdf, png = (file.read_bytes() for file in files)
    assert b"/FontFile2" in pdf and b"CreationDate" not in pdf  # TrueType as it is, which journals ask for
    assert png.startswith(b"\x89PNG")
    again = save_figure(draw(), str(tmp_path / "again"))
    assert [file.suffix for file in again] == [".pdf", ".png", ".svg"]
    assert [file.read_bytes() for file in again[:2]] == [pdf, png]


def test_an_unknown_format_is_one_line_and_no_file(tmp_path: Path):
    with pytest.raises(ValueError, match="unknown format 'jpg'") as error:
        save_figure(pictures(3)["health_figure"](), tmp_path / "a", ("pdf", "jpg"))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_names_need_no_matplotlib():
    code = (
        "import json, sys, toppo_diag.plots.names; json.dump([m for m in sys.modules if 'matplotlib' in m], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    with pytest.raises(AttributeError, match="has no attribute 'norm_figure'"):
        _ = plots.norm_figure


# --- what a reviewer would send back


@pytest.mark.parametrize("k", [3, 10, 15, 16, 50])
def test_many_tasks_are_grey_but_for_the_extremes(k: int):
    values = np.logspace(0, 3, k)[None].repeat(5, axis=0)
    tasks = [f"t{n}" for n in range(k)]
    figure = contributions_figure(np.arange(5), {"raw": values}, {"raw": Typical(1e3, 1e3, 1e3, 1)}, tasks)
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    coloured = [task for task in tasks if to_hex(lines[f"task {task}"].get_color()) != to_hex("0.82")]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    if k <= 15:
        assert coloured == shown == tasks
    else:
        assert coloured == [*tasks[:4], *tasks[-4:]]
        assert shown == [*coloured, f"{k - 8} other tasks"]


@pytest.mark.parametrize("span", [1.05, 1.4, 3.0, 8.0, 20.0, 1e4])
def test_a_log_axis_has_several_ticks_that_read(span: float):
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    values = np.linspace(8.0, 8.0 * span, 20)
    ax.plot(values)
    log_axis(ax, values)
    figure.canvas.draw()
    low, high = ax.get_ylim()
    inside = [t.get_text() for v, t in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True) if low <= v <= high]
    assert len([text for text in inside if text]) >= 2
    assert span > 30 or not [text for text in inside if "times" in text]


@pytest.mark.parametrize("order", [1, -1])
def test_panels_with_one_axis_have_the_ticks_of_all_that_is_drawn(order: int):
    """A panel whose values span little beside one whose values span much, drawn before or after it."""
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, values in list(zip(axes, (np.geomspace(1, 1e5, 5), np.linspace(1, 2.5, 5)), strict=True))[::order]:
        ax.plot(values)
        log_axis(ax, values)
    figure.canvas.draw()
    assert overprinted(figure, [text for text in axes[0].get_yticklabels() if text.get_text()]) == []
    inside = [tick for tick in axes[0].get_yticks() if 1 <= tick <= 1e5]
    assert {1.0, 1e2, 1e4} <= set(inside) or {1e1, 1e3, 1e5} <= set(inside)


def overprinted(figure: Figure, texts: list[Any]) -> list[str]:
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [f"{a} | {b}" for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def test_the_names_of_many_conditions_do_not_overprint():
    labels = [f"{part} ({run})" for part in ("vanilla", "+PopArt", "+PopArt+LN") for run in ("mean-ln", "fg-ln", "a")]
    values = {label: np.array([0.2, 0.3]) for label in labels}
    figure = health_figure(values, values, 10, "critic")
    assert overprinted(figure, figure.axes[1].get_xticklabels()) == []
    panel = gram_panel(np.diag(np.arange(1.0, 11)), tuple(f"t{n}" for n in range(10)))
    panels = {("early", label): panel for label in labels}
    figure = heatmap_figure(panels, {"early": "early, 1M steps"}, labels, "critic")
    titles = [text for text in figure.texts if text.get_gid() == "column"]
    assert [text.get_text().replace("\n", " ") for text in titles] == labels
    assert overprinted(figure, titles) == []


def test_the_page_of_one_side_is_filled():
    figure = conflicts_figure({"critic": conflicting(4)}, {"critic": LAYERS}, ["a", "b", "c", "d"])
    figure.canvas.draw()
    assert all(ax.axison for part in figure.subfigs for ax in part.axes)
    grid = next(ax for ax in every_axes(figure) if ax.images)
    assert grid.get_window_extent().x0 > 0.5 * figure.bbox.width


def every_axes(figure: Any) -> list[Any]:
    return [*figure.axes] if not figure.subfigs else [ax for part in figure.subfigs for ax in every_axes(part)]


def test_names_that_no_font_draws_are_said_once(tmp_path, recwarn):
    run = runs.record(tmp_path / "cjk", tasks=("\u5230\u8fbe", "\u63a8", "r\u00fcckw\u00e4rts", "x"), snapshots=2)
    product = toppo_diag.norms(str(run))
    notes = [note for note in product.notes if "no font here draws" in note]
    missing = undrawn(["\u5230\u8fbe\u63a8"])
    assert notes == [
        f"no font here draws {missing}: the figure has boxes; install one that does, such as Noto Sans CJK"
    ] * bool(missing)
    product.save(tmp_path / "o", "png,pdf,svg")
    assert not [w for w in recwarn.list if "Glyph" in str(w.message)]
    assert not [note for note in toppo_diag.norms(str(runs.record(tmp_path / "fg"))).notes if "no font" in note]


def test_every_panel_has_a_letter_of_its_own():
    letters = list(itertools.islice(panel_letters(), 60))
    assert letters[:3] == ["a", "b", "c"] and letters[25:28] == ["z", "aa", "ab"] and len(set(letters)) == 60

"""What the figures draw: the numbers they are given, the dead as dead, and labels that can be read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from toppo_diag.analysis.heatmap import gram_panel
from toppo_diag.analysis.invariance import Perturbation, Sweep
from toppo_diag.analysis.norms import NormSeries
from toppo_diag.plots.conflicts import conflicts_figure
from toppo_diag.plots.contributions import contributions_figure
from toppo_diag.plots.health import health_figure
from toppo_diag.plots.heatmap import heatmap_figure
from toppo_diag.plots.invariance import FACTORS, SIGMAS, invariance_figure
from toppo_diag.plots.names import METAWORLD
from toppo_diag.plots.norms import norms_figure
from toppo_diag.plots.replay import replay_figure
from toppo_diag.plots.style import COLUMN_WIDTH, DEAD, PAGE_WIDTH, combiner_style, paper_style, task_styles
from toppo_diag.plots.trap import trap_figure

STEPS = np.arange(1, 7) * 500_000


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with paper_style():
        yield


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
    return NormSeries(STEPS, norms, norms.mean(axis=1) / 3, np.full(6, np.sqrt(k)), np.full(6, 20.0), 20.0)


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
            np.testing.assert_array_equal(drawn, both["critic"].norms[:, i])
    np.testing.assert_array_equal(line(critic, "mean"), both["critic"].mean_norm)
    np.testing.assert_array_equal(line(critic, "fairgrad"), np.full(6, np.sqrt(k)))
    assert not [a for a in actor.lines if a.get_gid() == "fairgrad"]  # Figure 2 (b)
    assert "20\u00d7" in critic.get_title()
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "push (dead)" in legend
    assert_legible(figure)


@pytest.mark.parametrize("k", [3, 50])
def test_contributions(k: int):
    panels = {c: series(k).norms * n for n, c in enumerate(("raw, mean", "+PopArt, mean", "raw, FG", "+PopArt, FG"), 1)}
    figure = contributions_figure(STEPS, panels, dict.fromkeys(panels, 274.0), names(k))
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


@pytest.mark.parametrize("k", [4, 50])
def test_conflicts(k: int):
    rng = np.random.default_rng(0)
    pairs = rng.random((k, k))
    np.fill_diagonal(pairs, np.nan)
    sides = {side: (STEPS, rng.random(6), k * rng.random(6)) for side in ("actor", "critic")}
    layers = {"critic": [("trunk.0.weight", 0.5), ("trunk.0.bias", 0.25)]}
    figure = conflicts_figure(sides, dict.fromkeys(sides, pairs), layers, names(k))
    share, rank = figure.axes[:2]
    np.testing.assert_array_equal(line(share, "critic"), sides["critic"][1])
    np.testing.assert_array_equal(line(rank, "actor"), sides["actor"][2])
    grids = [ax for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (k, k)]
    assert len(grids) == 2
    np.testing.assert_array_equal(grids[0].images[0].get_array().compressed(), pairs[np.isfinite(pairs)])
    bars = [ax for ax in figure.axes if "conflict score" in ax.get_xlabel()]
    assert [bar.get_width() for bar in bars[0].patches] == [0.5, 0.25]
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
    J = np.random.default_rng(0).standard_normal((k, 80)) * np.logspace(-2, 2, k)[:, None]
    J[1] = 0
    panel = gram_panel(J @ J.T, names(k))
    conditions = ["vanilla", "+PopArt", "+LN", "+PopArt+LN"][:columns]
    stages = {"early": "early, 0.5M steps", "late": "late, 8M steps"}
    assert_legible(heatmap_figure({(s, c): panel for s in stages for c in conditions}, stages, conditions, "critic"))


def test_a_task_and_a_combiner_look_the_same_everywhere():
    few, all_of_them = task_styles(("push-v3", "reach-v3")), task_styles(names(50))
    assert few["push-v3"] == all_of_them["push-v3"]
    assert len({(s["color"], str(s["linestyle"])) for s in all_of_them.values()}) == 50
    mixed = task_styles(("digit 0", "digit 1", "reach-v3"))
    assert len({(s["color"], str(s["linestyle"])) for s in mixed.values()}) == 3
    assert combiner_style("fairgrad") == combiner_style("fairgrad:alpha=1") != combiner_style("fairgrad:alpha=2")
    assert combiner_style("cagrad") == combiner_style("cagrad:c=0.4")

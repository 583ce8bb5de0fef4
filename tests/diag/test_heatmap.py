"""Numbers of a heatmap panel, the rescaling that takes PopArt back, stages, and what the figure draws."""

import numpy as np
import pytest

from toppo_diag.analysis.heatmap import gram_panel, typical_panel
from toppo_diag.analysis.scale import without_popart
from toppo_diag.analysis.stages import stage_snapshots
from toppo_diag.analysis.typical import Typical, typical, typical_minibatch
from toppo_diag.plots.heatmap import heatmap_figure

TASKS = ("reach-v3", "push-v3", "digit-v3", "sweep-v2")
RNG = np.random.default_rng(1)
J = RNG.standard_normal((4, 30)) * np.array([1e-3, 1, 20, 0])[:, None]
GRAM = J @ J.T


def test_panel_is_the_caption():
    panel = gram_panel(GRAM, TASKS)
    norms = np.linalg.norm(J, axis=1)
    np.testing.assert_allclose(panel.share, norms / 4, rtol=1e-12)
    np.testing.assert_allclose(panel.log10_square[:3], 2 * np.log10(norms[:3]), rtol=1e-12)
    assert panel.log10_square[3] == -np.inf
    assert panel.spread.median == panel.spread.low == panel.spread.high == pytest.approx(norms[2] / norms[0])


def test_a_panel_of_several_minibatches_shows_the_typical_one_and_medians_of_all():
    minibatches = [RNG.standard_normal((4, 30)) + shift for shift in (3.0, 0.0, 1.0)]
    grams = np.stack([m @ m.T for m in minibatches])
    cosines = [_mean_abs_cosine(m) for m in minibatches]
    assert cosines[1] < cosines[2] < cosines[0]
    panel = typical_panel(grams, TASKS)
    assert panel.shown == 2
    np.testing.assert_array_equal(panel.cosine, gram_panel(grams[2], TASKS).cosine)
    assert panel.mean_abs_cosine.median == pytest.approx(cosines[2], rel=1e-12)
    lengths = [np.linalg.norm(m, axis=1) for m in minibatches]
    spreads = sorted(float(of.max() / of.min()) for of in lengths)
    assert (panel.spread.low, panel.spread.median, panel.spread.high) == pytest.approx(tuple(spreads), rel=1e-12)
    assert panel.spread.n == 3


def test_of_an_even_number_the_lower_middle_minibatch_is_shown():
    minibatches = [RNG.standard_normal((4, 30)) + shift for shift in (0.0, 3.0, 2.0, 1.0)]
    grams = np.stack([m @ m.T for m in minibatches])
    assert typical_minibatch(grams) == 3
    assert typical_minibatch(grams[:1]) == 0
    sigma = np.array([0.01, 3.0, 70.0, 5.0])
    assert typical_minibatch(without_popart(grams, np.tile(sigma, (4, 1)))) == 3


def test_only_known_numbers_count_and_infinity_is_one():
    assert typical(np.array([1.0, np.nan, 3.0, np.inf])) == Typical(3.0, 1.0, np.inf, 3)
    assert typical(np.array([np.nan])).n == 0
    unknown = np.full((4, 4), np.nan)
    assert typical_minibatch(np.stack([unknown, GRAM, unknown])) == 1


def _mean_abs_cosine(J: np.ndarray) -> float:
    unit = J / np.linalg.norm(J, axis=1, keepdims=True)
    return float(np.mean([abs(unit[i] @ unit[j]) for i in range(len(J)) for j in range(len(J)) if i != j]))


def test_sigma_inversion_is_the_raw_gradients_gram_and_keeps_cosines():
    sigma = np.array([0.01, 3.0, 70.0, 5.0])
    raw = J * (sigma**2)[:, None]
    inverted = without_popart(GRAM, sigma)
    np.testing.assert_allclose(inverted, raw @ raw.T, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(gram_panel(inverted, TASKS).cosine, gram_panel(GRAM, TASKS).cosine, rtol=0, atol=4e-16)


def test_stages():
    steps = np.arange(1, 8) * 500_000
    assert stage_snapshots(steps) == {"early": 0, "mid": 3, "late": 6}
    assert stage_snapshots(steps[:2]) == {"early": 0, "late": 1}
    assert stage_snapshots(steps[:1]) == {"early": 0}
    with pytest.raises(ValueError, match="unknown stage 'lat'"):
        stage_snapshots(steps, ["lat"])
    with pytest.raises(ValueError, match="no committed snapshot"):
        stage_snapshots(steps[:0])


def test_stages_of_a_run_that_reaches_the_papers_steps_are_nearest_to_these():
    steps = np.arange(1, 17) * 500_000  # 0.5M to 8M
    assert {stage: steps[s] for stage, s in stage_snapshots(steps).items()} == {
        "early": 500_000,
        "mid": 4_500_000,
        "late": 7_500_000,
    }
    assert stage_snapshots(steps[:15])["late"] == 14  # 7.5M is reached
    assert stage_snapshots(steps[:14]) == {"early": 0, "mid": 6, "late": 13}  # 7M is not: first, middle, last
    sparse = np.array([4_000_000, 8_000_000])  # 0.5M and 4.5M have the same nearest snapshot
    assert stage_snapshots(sparse) == {"early": 0, "late": 1}
    assert stage_snapshots(steps, paper=False) == {"early": 0, "mid": 7, "late": 15}  # steps of another kind
    longer = np.arange(1, 41) * 500_000
    assert stage_snapshots(longer) == {"early": 0, "mid": 8, "late": 14}


def test_figure_draws_the_panels_numbers_and_marks_the_dead():
    panels = {("early", "a"): gram_panel(GRAM, TASKS), ("late", "a"): gram_panel(4 * GRAM, TASKS)}
    figure = heatmap_figure(panels, {"early": "early, 0.5M steps", "late": "late"}, ["a"], "critic")
    grids = [ax for ax in figure.axes if len(ax.images) == 2]
    assert len(grids) == 2
    off, on = (image.get_array() for image in grids[0].images)
    drawn = ~np.ma.getmaskarray(off)
    expected = ~np.eye(4, dtype=bool)
    expected[3, :] = expected[:, 3] = False  # dead: neither cosine nor magnitude is drawn, the grey ground shows
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(off[drawn], panels["early", "a"].cosine[drawn])
    np.testing.assert_array_equal(on.compressed(), panels["early", "a"].log10_square[:3])
    bars = [ax for ax in figure.axes if ax.get_yscale() == "log"]
    (dots,) = bars[0].lines
    np.testing.assert_array_equal(dots.get_ydata(), panels["early", "a"].share[:3])
    assert bars[0].get_title(loc="right").endswith(f"\u00d7\n|cos| {panels['early', 'a'].mean_abs_cosine.median:.2f}")
    low, high = np.log10(bars[0].get_ylim())  # the dots fill three quarters of the axis: the badge stands above it
    drawn_shares = np.log10([share for panel in panels.values() for share in panel.share if share > 0])
    assert low < drawn_shares.min() and drawn_shares.max() < high
    assert np.ptp(drawn_shares) > 0.75 * (high - low)
    assert [t.get_text() for t in grids[1].get_xticklabels()] == ["reach", "push", "digit-v3", "sweep"]

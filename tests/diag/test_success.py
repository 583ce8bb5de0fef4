"""Statistics over checkpoints, tasks and seeds: hand-worked, and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toppo.dump import worst_k
from toppo_diag.analysis import success as s

STEPS = np.arange(0, 1_100_000, 100_000)
CURVES = np.array(
    [
        [0.0, 0.0],
        [0.1, 0.2],
        [0.2, 0.3],
        [0.9, 0.4],
        [0.5, 0.5],
        [0.6, 0.6],
        [0.6, 0.7],
        [0.6, 0.7],
        [0.6, 0.7],
        [0.7, 0.7],
        [0.8, 0.4],
    ]
)
"""Seed 0 is best at 300,000; seed 1 first at 600,000; the mean curve (.65 .. .7) at 900,000."""


def test_the_four_aggregators_by_hand():
    np.testing.assert_array_equal(s.final(STEPS, CURVES), [0.8, 0.4])
    np.testing.assert_array_equal(s.best_per_seed(STEPS, CURVES), [0.9, 0.7])
    np.testing.assert_array_equal(s.peak(STEPS, CURVES), [0.7, 0.7])
    np.testing.assert_allclose(s.late(STEPS, CURVES), [0.75, 0.55], rtol=1e-15)  # 900,000 and 1,000,000 of 1,000,000
    assert list(s.AGGREGATORS) == ["best", "peak", "final", "late"]


def test_the_late_window_holds_the_last_alone_where_evaluations_are_sparse():
    np.testing.assert_array_equal(s.late(np.array([0, 100, 200]), np.array([[0.0], [0.5], [1.0]])), [1.0])


def test_worst_k_is_each_seeds_own():
    last = np.array([[0.0, 1.0, 0.5, 0.5], [1.0, 0.2, 1.0, 0.0]])
    np.testing.assert_allclose(worst_k(last, 2), [0.25, 0.1], rtol=1e-15)
    np.testing.assert_allclose(worst_k(last, 4), last.mean(axis=1), rtol=1e-15)
    np.testing.assert_allclose(worst_k(last, 9), last.mean(axis=1), rtol=1e-15)
    over_time = np.stack([last, 1 - last])  # (S, n, K): each checkpoint has its own worst
    np.testing.assert_allclose(worst_k(over_time, 1), [[0, 0], [0, 0]], rtol=0)
    np.testing.assert_allclose(worst_k(over_time, 2)[1], [0.25, 0.0], rtol=1e-15)


def test_std_is_the_one_of_the_papers_bimodal_rows():
    """Table D.5, drawer-open-v3 vanilla: 20.0 +- 42.2; Table D.6, push-back-v3 TOPPO: 10.0 +- 31.6."""
    two_of_ten = np.array([100.0, 100.0, *[0.0] * 8])
    one_of_ten = np.array([100.0, *[0.0] * 9])
    assert (two_of_ten.mean(), round(float(s.std(two_of_ten)), 1)) == (20.0, 42.2)
    assert (one_of_ten.mean(), round(float(s.std(one_of_ten)), 1)) == (10.0, 31.6)


def test_statistics_against_scipy():
    values = np.random.default_rng(0).uniform(size=(7, 10))
    np.testing.assert_allclose(s.std(values), stats.tstd(values, axis=1), rtol=1e-13)
    np.testing.assert_allclose(s.sem(values), stats.sem(values, axis=1), rtol=1e-13)
    for n in range(1, 11):
        np.testing.assert_allclose(s.iqm(values[:, :n]), stats.trim_mean(values[:, :n], 0.25, axis=1), rtol=1e-13)


def test_bootstrap_against_scipy():
    """The same draws in the same order, so that only rounding differs."""
    values = np.random.default_rng(1).uniform(size=10)
    theirs = stats.bootstrap(
        (values,),
        lambda v, axis: s.iqm(v),
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
        vectorized=True,
    ).confidence_interval
    np.testing.assert_allclose(s.bootstrap_interval(values), theirs, rtol=1e-12)


def test_a_curves_interval_draws_whole_seeds():
    """What is drawn at one checkpoint is drawn at all: a shifted curve has the shifted interval."""
    values = np.random.default_rng(2).uniform(size=6)
    low, high = s.bootstrap_interval(np.stack([values, values + 1]))
    np.testing.assert_allclose([low[1], high[1]], [low[0] + 1, high[0] + 1], rtol=1e-13)
    assert values.min() <= low[0] < s.iqm(values) < high[0] <= values.max()


def test_a_bootstrap_interval_covers():
    """Percentile intervals of few seeds are short: with n = 10 the resampled mean's std is sqrt(9 / 10) of the standard
    error and there is no t factor, so that 95% intervals hold the truth in P(|t_9| < 1.96 sqrt(0.9)) = 0.904 of all
    samples, had the resampled mean a normal distribution. 400 samples: 3 standard errors are 0.044.
    """
    samples = np.random.default_rng(3).standard_normal((400, 10))
    low, high = s.bootstrap_interval(samples, lambda v: v.mean(axis=-1), resamples=500)
    expected = 2 * stats.t.cdf(1.96 * np.sqrt(0.9), df=9) - 1
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(expected, abs=0.044)


def test_one_seed_has_no_spread():
    one = s.summarise(np.array([0.5]))
    assert (one.mean, one.iqm, one.n) == (0.5, 0.5, 1)
    assert np.isnan([one.std, one.sem, one.iqm_low, one.iqm_high]).all()


def test_summary_by_hand():
    two = s.summarise(np.array([0.0, 1.0]))
    assert (two.mean, two.iqm, two.n) == (0.5, 0.5, 2)
    assert two.std == pytest.approx(np.sqrt(0.5))
    assert two.sem == pytest.approx(0.5)
    assert (two.iqm_low, two.iqm_high) == (0.0, 1.0)


def test_best_checkpoints():
    np.testing.assert_array_equal(s.best_checkpoint_steps(STEPS, CURVES), [300_000, 600_000])
    of = s.step_distribution(np.array([1.0, 2.0, 3.0, 10.0]))
    assert (of.median, of.q25, of.q75, of.least, of.most) == (2.5, 1.75, 4.75, 1.0, 10.0)


def test_a_level_is_reached_for_good():
    curve = CURVES[:, 0]
    assert s.step_reached(STEPS, curve, 0.5) == 300_000
    assert s.step_reached(STEPS, curve, 0.6) == 500_000  # above it at 300,000, below at 400,000
    assert s.step_reached(STEPS, curve, 0.8) == 1_000_000
    assert s.step_reached(STEPS, curve, 0.85) is None  # was above it, ends below
    assert s.step_reached(STEPS, curve, 0.0) == 0
    assert s.step_reached(STEPS, np.full(len(STEPS), np.nan), 0.0) is None

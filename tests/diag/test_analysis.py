"""Each quantity against a float64 loop written out plainly, and against closed forms."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.combiners.gradients import PROPERTY, gram_of, independent, well_conditioned
from toppo.combiners import FairGrad, make
from toppo.combiners.geometry import (
    conflict_score,
    direction_shares,
    effective_rank,
    mean_abs_cosine,
    top_1_mass,
)
from toppo_diag.analysis.conflicts import (
    ROUNDING,
    conflict_series,
    heads,
    layer_conflicts,
    layer_conflicts_over_time,
)
from toppo_diag.analysis.health import health_series
from toppo_diag.analysis.invariance import (
    gaussian_gram,
    lognormal_perturbation,
    realised,
    single_task_sweep,
)
from toppo_diag.analysis.norms import norm_series
from toppo_diag.analysis.presence import solve
from toppo_diag.analysis.replay import direction_cosine, relative_distance, replay
from toppo_diag.analysis.scale import without_popart
from toppo_diag.analysis.series import BAND, Steps
from toppo_diag.analysis.stages import choose_snapshots
from toppo_diag.analysis.trap import starved_for, trap
from toppo_diag.reading.dumps import known_block

RNG = np.random.default_rng(3)
J = RNG.standard_normal((5, 30)) * np.array([1e-2, 1, 20, 0, 3])[:, None]  # task 3 is dead
G = J @ J.T


def norm(v: np.ndarray) -> float:
    return math.sqrt(sum(float(x) * float(x) for x in v))


def dot(u: np.ndarray, v: np.ndarray) -> float:
    return sum(float(a) * float(b) for a, b in zip(u, v, strict=True))


# --- Figure 2


def test_norm_series_is_what_the_vectors_give():
    minibatches = [J, 2 * J, 9 * J, 3 * J[::-1]]
    series = norm_series(np.array([10, 10, 10, 20]), np.stack([m @ m.T for m in minibatches]))
    assert series.env_steps.tolist() == [10, 20]
    for k in range(5):
        first = [series.norms.low[0, k], series.norms.median[0, k], series.norms.high[0, k]]
        np.testing.assert_allclose(first, [norm(J[k]), norm(2 * J[k]), norm(9 * J[k])], rtol=1e-12)
        np.testing.assert_allclose(series.norms.median[1, k], norm(3 * J[4 - k]), rtol=1e-12)
    np.testing.assert_allclose(series.mean_norm.median[1], norm(minibatches[3].sum(axis=0) / 5), rtol=1e-12)
    np.testing.assert_allclose(series.fairgrad_norm.median, math.sqrt(4), rtol=1e-12)  # four live tasks
    lengths = [norm(g) for g in J if norm(g) > 0]
    np.testing.assert_allclose(series.spread.median, max(lengths) / min(lengths), rtol=1e-12)
    assert series.typical["spread"].n == 4
    means = sorted(norm(m.sum(axis=0) / 5) for m in minibatches)
    assert series.typical["mean_norm"].median == pytest.approx((means[1] + means[2]) / 2)
    assert (series.typical["mean_norm"].low, series.typical["mean_norm"].high) == pytest.approx((means[0], means[3]))


@given(J=well_conditioned(max_spread=1e4))
@PROPERTY
def test_fairgrads_norm_is_root_k(J: np.ndarray):
    series = norm_series(np.zeros(1, dtype=int), gram_of(J)[None])
    np.testing.assert_allclose(series.fairgrad_norm.median, math.sqrt(len(J)), rtol=1e-9)


# --- Figures D.3 and D.4


def test_top_1_mass_and_shares_are_what_the_vectors_give():
    w = np.array([3.0, 0.1, 0.02, 5.0, 0.5])
    lengths = [norm(w[i] * J[i]) for i in range(5)]
    assert top_1_mass(G, w) == pytest.approx(max(lengths) / sum(lengths), rel=1e-12)
    d = sum(w[i] * J[i] for i in range(5))
    np.testing.assert_allclose(direction_shares(G, w), [w[i] * dot(J[i], d) / dot(d, d) for i in range(5)], rtol=1e-10)
    assert direction_shares(G, w).sum() == pytest.approx(1)


def test_closed_forms_of_mass_and_share():
    ten_to_one = np.diag([100.0, 1.0])
    assert top_1_mass(ten_to_one, np.array([0.5, 0.5])) == pytest.approx(10 / 11)
    np.testing.assert_allclose(direction_shares(ten_to_one, np.array([0.5, 0.5])), [100 / 101, 1 / 101], rtol=1e-12)
    fair = FairGrad().combine(ten_to_one).weights
    assert top_1_mass(ten_to_one, fair) == pytest.approx(1 / 2)
    identical = np.ones((4, 4))
    np.testing.assert_allclose(direction_shares(identical, np.full(4, 0.25)), 0.25)
    nothing = np.zeros((3, 3))
    assert top_1_mass(nothing, np.ones(3)) == 0
    assert not direction_shares(nothing, np.ones(3)).any()


@given(J=well_conditioned(max_spread=1e3))
@PROPERTY
def test_fairgrad_shares_the_direction_equally(J: np.ndarray):
    gram = gram_of(J)
    shares = direction_shares(gram, FairGrad().combine(gram).weights)
    np.testing.assert_allclose(shares, 1 / len(J), rtol=1e-8)


# --- sigma^2 inversion (Equation 2)


def test_raw_gradients_are_sigma_squared_times_popart_ones():
    """A critic z(s) = theta's with PopArt's head V = sigma z + mu, and both losses on the same weights, written out."""
    rng = np.random.default_rng(0)
    theta, sigma, mu = rng.standard_normal(6), np.array([0.05, 2.0, 40.0]), np.array([1.0, -3.0, 100.0])
    normalised, raw = [], []
    for i in range(3):
        states, returns = rng.standard_normal((20, 6)), mu[i] + sigma[i] * rng.standard_normal(20)
        z = states @ theta
        normalised.append(np.mean([2 * (z[t] - (returns[t] - mu[i]) / sigma[i]) * states[t] for t in range(20)], 0))
        value = sigma[i] * z + mu[i]
        raw.append(np.mean([2 * (value[t] - returns[t]) * sigma[i] * states[t] for t in range(20)], 0))
    found = without_popart(np.array(normalised) @ np.array(normalised).T, sigma)
    np.testing.assert_allclose(found, np.array(raw) @ np.array(raw).T, rtol=1e-10)
    stack = without_popart(np.stack([G, 2 * G]), np.stack([np.ones(5), np.full(5, 3.0)]))
    np.testing.assert_allclose(stack, [G, 2 * 81 * G], rtol=1e-14)


# --- replay (Section D.2)


@pytest.mark.parametrize("spec", ["mean", "fairgrad:alpha=1", "mgda", "cagrad"])
def test_replay_is_what_the_vectors_give(spec: str):
    found = replay(make(spec), np.stack([G, 4 * G]))
    for n, vectors in enumerate((J, 2 * J)):
        w = make(spec).combine(vectors @ vectors.T).weights
        d = sum(w[i] * vectors[i] for i in range(5))
        assert found.norm[n] == pytest.approx(norm(d), rel=1e-9)
        for i in range(5):
            assert found.contributions[n, i] == pytest.approx(norm(w[i] * vectors[i]), rel=1e-9)
            assert found.progress[n, i] == pytest.approx(dot(vectors[i], d), rel=1e-6, abs=1e-10)
            if i == 3:
                assert np.isnan(found.cosine[n, i])
            else:
                expected = dot(vectors[i], d) / norm(vectors[i]) / norm(d)
                assert found.cosine[n, i] == pytest.approx(expected, abs=1e-7)
        live = [0, 1, 2, 4]
        assert found.worst_progress[n] == min(found.progress[n, live])
        assert found.worst_cosine[n] == min(found.cosine[n, live])


def test_a_sum_and_a_mean_have_one_direction():
    ones = np.ones((1, 5))
    assert direction_cosine(G[None], ones, ones / 5) == pytest.approx(1)
    assert relative_distance(G[None], ones / 5, ones) == pytest.approx(0.8)
    a, b = RNG.standard_normal((2, 1, 5))
    u, v = a[0] @ J, b[0] @ J
    assert direction_cosine(G[None], a, b)[0] == pytest.approx(dot(u, v) / (norm(u) * norm(v)))
    assert np.isnan(direction_cosine(G[None], 0 * ones, ones)[0])


def test_replay_of_the_papers_ten_to_one():
    gram = np.diag([100.0, 1.0])[None]
    assert round(100 * float(replay(make("mean"), gram).cosine[0, 0]), 1) == 99.5
    fair = replay(make("fairgrad:alpha=1"), gram)
    np.testing.assert_allclose(fair.weights[0], [0.1, 1.0], rtol=1e-14)
    np.testing.assert_allclose(fair.contributions[0], 1, rtol=1e-14)
    np.testing.assert_allclose(fair.progress[0], [10, 1], rtol=1e-14)


def test_replay_without_any_gradient():
    found = replay(make("fairgrad"), np.zeros((1, 3, 3)))
    assert np.isnan(found.worst_cosine[0])
    assert found.worst_progress[0] == 0


def test_relative_distance_does_not_cancel():
    gram = np.eye(2)[None]
    w = np.array([[1.0, 1.0]])
    assert relative_distance(gram, w, w)[0] == 0
    assert relative_distance(gram, w + np.array([[1e-14, 0]]), w)[0] == pytest.approx(1e-14 / math.sqrt(2), rel=0.1)
    assert relative_distance(gram, w, 0 * w)[0] == np.inf


# --- Figure D.5


def test_the_sweep_holds_for_fairgrad_and_not_for_the_mean():
    gram = gaussian_gram(4)
    fair, mean = single_task_sweep(FairGrad(), gram), single_task_sweep(make("mean"), gram)
    assert fair.distance.max() <= 1e-14
    assert fair.cosine.min() >= 1 - 1e-14
    assert mean.cosine.min() < 0.9
    middle = len(mean.cosine) // 2  # c = 1
    assert mean.distance[middle] <= 1e-14
    # closed form for orthogonal gradients: the mean of (10, 1) against (1, 1)
    apart = single_task_sweep(make("mean"), np.eye(2), np.array([10.0]))
    assert apart.cosine[0] == pytest.approx(11 / math.sqrt(101 * 2))
    assert apart.distance[0] == pytest.approx(9 / math.sqrt(2))


def test_the_lognormal_band():
    gram = gaussian_gram(4)
    fair = lognormal_perturbation(FairGrad(), gram, np.array([0.0, 2.0]), draws=6)
    mean = lognormal_perturbation(make("mean"), gram, np.array([0.0, 2.0]), draws=6)
    np.testing.assert_allclose([fair.low, fair.median, fair.high], 1, atol=1e-12)
    assert mean.median[0] == pytest.approx(1)
    assert mean.low[1] < mean.median[1] < mean.high[1] < 1


def test_combiners_that_take_losses_and_orders_are_handed_the_same_twice():
    for spec in ("dwa", "famo", "pcgrad"):
        assert single_task_sweep(make(spec), gaussian_gram(4), np.array([1.0])).distance[0] <= 1e-12


@given(J=well_conditioned(max_spread=10, min_tasks=2), seed=st.integers(0, 2**31))
@PROPERTY
def test_corollary_1_on_a_minibatch(J: np.ndarray, seed: int):
    sigma = np.exp(np.random.default_rng(seed).uniform(-3, 3, len(J)))
    found = realised(FairGrad(), gram_of(J), sigma)
    assert found.solved
    assert found.distance <= 1e-12
    assert found.norm_error <= 1e-12


def test_a_singular_gram_is_not_held_to_theorem_1():
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert not realised(FairGrad(), gram, np.ones(2)).solved


# --- conflicts


def test_conflicts_are_what_the_vectors_give():
    """Without noise, a conflict is the negative part of the cosine beyond rounding."""
    stack = np.stack([G, gram_of(independent(np.random.default_rng(1), 5))])
    s = conflict_series(np.array([10, 20]), stack)
    for n in range(2):
        pairs = [(i, j) for i in range(5) for j in range(i + 1, 5) if stack[n, i, i] > 0 and stack[n, j, j] > 0]
        assert s.negative[n] == pytest.approx(sum(stack[n, i, j] < 0 for i, j in pairs) / len(pairs))
        assert s.share[n] == s.negative[n]  # two steps cannot tell noise
    found = s.found
    assert not found.noise_known
    assert found.share[0, 3] == float(stack[1, 0, 3] < 0)  # task 3 is alive in the second alone
    both = [stack[n, 0, 1] / math.sqrt(stack[n, 0, 0] * stack[n, 1, 1]) for n in range(2)]
    assert found.share[0, 1] == np.mean([c < 0 for c in both])
    assert found.cosine[0, 1] == pytest.approx(np.mean(both))
    assert found.strength[0, 1] == pytest.approx(np.mean([max(0, -c - ROUNDING) for c in both]))
    assert np.isnan(np.diag(found.share)).all()
    assert len(s.pairs) == 10
    strengths = [found.strength[p] for p in s.pairs]
    assert strengths == sorted(strengths, reverse=True)


@pytest.mark.parametrize("minibatches", [1, 5])
def test_independent_gradients_are_in_conflict_no_more_often_than_the_band_lets_through(minibatches: int):
    """Half of the signs are negative; beyond two standard errors lie 2.3 % of a normal distribution."""
    rng = np.random.default_rng(0)
    J = rng.standard_normal((60 * minibatches, 8, 400))
    s = conflict_series(np.repeat(np.arange(60), minibatches), J @ J.swapaxes(1, 2))
    assert s.found.noise_known
    assert s.mean_negative == pytest.approx(0.5, abs=0.05)  # four standard deviations of 1,680 draws
    assert s.mean_share == pytest.approx(0.023, abs=0.015)  # likewise
    assert np.nanmax(s.found.strength) < 0.01  # against a mean |cos| of 0.04


def test_a_conflict_beyond_noise_is_found_with_its_size():
    rng = np.random.default_rng(1)
    J = rng.standard_normal((40, 3, 400))
    J[:, 1] -= 0.75 * J[:, 0]  # cos(g_0, g_1) = -0.6
    s = conflict_series(np.repeat(np.arange(20), 2), J @ J.swapaxes(1, 2))
    assert s.worst == (0, 1)
    assert s.found.share[0, 1] == 1
    assert s.found.strength[0, 1] == pytest.approx(0.6 - np.nanmedian(s.found.noise[0, 1]), abs=0.02)
    assert s.found.strength[0, 2] < 0.01


def test_noise_is_pooled_within_steps_or_taken_from_step_to_step():
    rng = np.random.default_rng(2)
    drift = np.linspace(0, 10, 200)
    alone = Steps.of(np.arange(200))
    assert alone.noise(drift + 0.3 * rng.standard_normal(200)) == pytest.approx(0.3, rel=0.15)
    several = Steps.of(np.repeat(np.arange(50), 4))
    values = np.repeat(10 * rng.standard_normal(50), 4) + 0.3 * rng.standard_normal(200)
    assert several.noise(values) == pytest.approx(0.3, rel=0.15)
    assert several.band(values)[0] == pytest.approx(BAND * several.noise(values) / 2)
    assert np.isnan(Steps.of(np.array([1, 2])).noise(np.array([1.0, 2.0])))
    assert Steps.of(np.array([1, 2])).band(np.array([1.0, 2.0]), 0.1).tolist() == [0.1, 0.1]


def test_steps_leave_out_what_is_not_there():
    steps = Steps.of(np.array([1, 1, 2]))
    values = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(steps.mean(values), [[2, 4], [5, np.nan]])
        np.testing.assert_array_equal(steps.median(values), [[2, 4], [5, np.nan]])
        np.testing.assert_array_equal(steps.count(values), [[2, 1], [1, 0]])
        steps.band(values)


def test_noise_is_told_across_gaps():
    """A number that is there at every other step has the noise of one that is always there."""
    values = 0.3 * np.random.default_rng(4).standard_normal((200, 2))
    values[1::2, 1] = np.nan
    noise = Steps.of(np.arange(200)).noise(values)
    np.testing.assert_allclose(noise, 0.3, rtol=0.15)
    values[4:, 1] = np.nan  # two numbers cannot tell it: the band is that of the others
    band = Steps.of(np.arange(200)).band(values)
    assert band[0, 1] == band[0, 0]


def layered(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Twelve minibatches of a trunk in conflict, a bias of rounding noise alone, and a head for each of three tasks."""
    J = rng.standard_normal((12, 3, 200))
    J[:, 1] -= 0.75 * J[:, 0]
    noise = 1e-9 * rng.standard_normal((12, 3, 8))
    noise[:, 1] = -noise[:, 0]
    heads = [30 * np.eye(3)[:, [k]] * rng.standard_normal((12, 1, 1)) for k in range(3)]
    parts = {"trunk": J, "bias": noise, **{f"head.{k}": head for k, head in enumerate(heads)}}
    return {name: part @ part.swapaxes(1, 2) for name, part in parts.items()}


def test_a_layer_of_rounding_noise_is_not_in_conflict():
    layers = layered(np.random.default_rng(3))
    assert conflict_score(layers["bias"]).mean() >= 1 / 3  # tasks 0 and 1 are opposed in it
    found = layer_conflicts(np.arange(12), layers)
    assert found[0].name == "trunk"
    by_name = {layer.name: layer for layer in found}
    assert by_name["trunk"].conflict > 0
    assert by_name["bias"].conflict == 0
    assert by_name["bias"].norm_share < 1e-15
    assert sum(layer.norm_share for layer in found) == pytest.approx(1)
    assert by_name["head.2"].reached == (2,)


def test_heads_hide_how_tasks_meet():
    layers = layered(np.random.default_rng(3))
    found = heads(layers, layer_conflicts(np.arange(12), layers))
    assert found is not None
    assert found.layers == {0: ["head.0"], 1: ["head.1"], 2: ["head.2"]}
    assert found.without_heads == pytest.approx(float(np.median(mean_abs_cosine(layers["trunk"]))), rel=1e-6)
    assert found.with_heads < found.without_heads
    trunk = {"trunk": layers["trunk"]}
    assert heads(trunk, layer_conflicts(np.arange(12), trunk)) is None


def test_closed_forms_of_conflict():
    assert effective_rank(np.diag([4.0, 9.0, 1e-6])) == pytest.approx(3)
    assert effective_rank(np.ones((3, 3))) == pytest.approx(1)
    opposed = np.array([[1.0, -2.0], [-2.0, 4.0]])
    assert effective_rank(opposed) == pytest.approx(1)
    assert conflict_score(opposed) == 1
    assert effective_rank(np.diag([1.0, 0.0, 2.0])) == pytest.approx(2)
    assert effective_rank(np.zeros((2, 2))) == 0
    assert conflict_score(np.zeros((2, 2))) == 0
    eigenvalues = np.linalg.eigvalsh(np.array([[1.0, 0.6], [0.6, 1.0]])) / 2
    expected = math.exp(-sum(p * math.log(p) for p in eigenvalues))
    assert effective_rank(np.array([[4.0, 1.2], [1.2, 1.0]])) == pytest.approx(expected)


# --- trap, steps, snapshots


def test_starved_for_counts_the_snapshots_at_the_end():
    starved = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=bool)
    known = np.ones_like(starved)
    assert starved_for(starved, known).tolist() == [2, 3, 2]
    known[2, 0] = known[1, 2] = known[2, 2] = False  # absent: skipped, neither counted nor a break
    assert starved_for(starved, known).tolist() == [4, 3, 3]


def shares_at(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grams and weights of tasks with these shares of the direction: orthogonal gradients, weights of 1."""
    return np.stack([np.diag(row) for row in shares]), np.ones_like(shares)


def test_three_noisy_snapshots_do_not_starve_a_task():
    rng = np.random.default_rng(0)
    noisy = np.abs(0.03 * rng.standard_normal(30))
    noisy[-3:] = 0.004, 0.001, 0.006  # below the threshold by chance, among shares of 0.02
    starving = np.where(np.arange(30) < 20, 0.2, 0.002 * rng.uniform(0.5, 1.5, 30))
    shares = np.stack([noisy, starving, 1 - noisy - starving], axis=1)
    found = trap(np.arange(30), *shares_at(shares), None, 0.03)
    np.testing.assert_allclose(found.shares, shares, rtol=1e-12)
    assert found.starved_for[0] < 3
    assert found.starved_for[1] >= 7  # of ten; the jump into them is no noise
    assert found.starved_for[2] == 0


def test_a_task_that_now_makes_most_of_the_step_is_not_starved():
    first = np.concatenate([np.full(10, 0.001), np.full(5, 0.85)])
    found = trap(np.arange(15), *shares_at(np.stack([first, 1 - first], axis=1)), None, 0.1)
    assert found.starved[:8, 0].all()
    assert found.starved_for.tolist() == [0, 0]


def test_noise_of_a_share_is_that_of_its_minibatches():
    """A mean share below the threshold is no starvation where the minibatches are far apart."""
    apart = np.tile([-0.4, 0.4], 10)
    near = np.full(20, 0.001)
    shares = np.stack([apart, near, 1 - apart - near], axis=1)
    found = trap(np.repeat(np.arange(10), 2), *shares_at(np.abs(shares)), None, 0.03)
    assert found.starved_for[1] == 10
    assert Steps.of(np.repeat(np.arange(10), 2)).band(shares, near=True)[0, 0] > 0.5


def test_steps_gather_minibatches():
    steps = Steps.of(np.array([20, 10, 20]))
    assert steps.env_steps.tolist() == [10, 20]
    np.testing.assert_array_equal(steps.mean(np.array([1.0, 5.0, 3.0])), [5, 2])
    np.testing.assert_array_equal(steps.median(np.array([[1.0], [5.0], [3.0]])), [[5], [2]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"stage": ["late", "early"]}, [4, 0]),
        ({"snapshot": ["-1", "0", "1:2"]}, [4, 0, 1, 2]),
        ({"steps": ["190", "99"]}, [1, 0]),
        ({"steps": ["200:400"]}, [1, 2, 3]),
        ({"snapshot": ["2", "2"]}, [2]),
    ],
)
def test_choosing_snapshots(how: dict, expected: list[int]):
    assert list(choose_snapshots(np.array([100, 200, 300, 400, 500]), **how)) == expected


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"snapshot": ["5"]}, "has no snapshot 5: it holds 5"),
        ({"snapshot": ["x"]}, "'x' is not a whole number"),
        ({"steps": ["600:900"]}, "no snapshot within steps 600:900"),
        ({"stage": ["erly"]}, "unknown stage 'erly': give early, mid, late"),
    ],
)
def test_choosing_snapshots_that_are_not_there(how: dict, message: str):
    with pytest.raises(ValueError, match=message):
        choose_snapshots(np.array([100, 200, 300, 400, 500]), **how)


# --- tasks that are not known


def blocks(k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Six Grams of k tasks, of which some are absent; 0 in their rows and columns."""
    rng = np.random.default_rng(5)
    J = rng.standard_normal((6, k, 30)) * np.logspace(-1, 1, k)[:, None]
    known = rng.random((6, k)) < 0.6
    known[:, 0] = True
    J[~known] = 0
    return J @ J.swapaxes(1, 2), known


@pytest.mark.parametrize("spec", ["mean", "fairgrad:alpha=1", "fairgrad:alpha=2", "cagrad", "mgda", "upgrad"])
def test_a_combiner_sees_the_block_of_known_tasks(spec: str):
    gram, known = blocks()
    found = solve(make(spec), gram, known)
    for n, there in enumerate(known):
        block = gram[n][np.ix_(there, there)]
        np.testing.assert_allclose(found.weights[n, there], make(spec).combine(block).weights, rtol=1e-9, atol=1e-12)
        assert (found.weights[n, ~there] == 0).all()


def test_measures_are_those_of_the_block_of_known_tasks():
    gram, known = blocks()
    series = norm_series(np.arange(6), gram, known)
    conflicting = conflict_series(np.arange(6), gram, known=known)
    mass = health_series(gram, "mean", known)
    np.testing.assert_array_equal(np.isnan(series.norms.median), ~known)
    for n, there in enumerate(known):
        block = gram[n][np.ix_(there, there)]
        alone = norm_series(np.array([0]), block[None])
        assert series.spread.median[n] == pytest.approx(alone.spread.median[0])
        assert series.mean_norm.median[n] == pytest.approx(alone.mean_norm.median[0])
        assert mass.top_1_mass[n] == pytest.approx(health_series(block[None], "mean").top_1_mass[0])
        if there.sum() > 1:
            assert mass.mean_abs_cosine[n] == pytest.approx(mean_abs_cosine(block))
            assert conflicting.negative[n] == pytest.approx(conflict_score(block))
            assert conflicting.effective_rank.median[n] == pytest.approx(effective_rank(block))
        else:
            assert np.isnan(mass.mean_abs_cosine[n])


def test_a_row_that_is_not_finite_takes_nothing_else_with_it():
    gram = np.stack([np.arange(9.0).reshape(3, 3) + 10 * np.eye(3)] * 3)
    gram[0, 1, :] = gram[0, :, 1] = np.nan
    gram[1] = np.nan
    filled, known = known_block(gram)
    assert known.tolist() == [[True, False, True], [False] * 3, [True] * 3]
    assert filled[0].tolist() == [[10, 0, 2], [0, 0, 0], [6, 0, 18]]
    assert not filled[1].any()
    np.testing.assert_array_equal(filled[2], gram[2])


def test_layer_conflicts_over_time_average_to_those_of_the_whole_run():
    rng = np.random.default_rng(0)
    env_steps = np.repeat(np.arange(6), 4)
    layers = {name: np.array([gram_of(rng.standard_normal((3, 8))) for _ in env_steps]) for name in "ab"}
    over_time = layer_conflicts_over_time(env_steps, np.stack(list(layers.values()), axis=1))
    assert over_time.shape == (6, 2)
    whole = {layer.name: layer.conflict for layer in layer_conflicts(env_steps, layers)}
    assert over_time.mean(axis=0) == pytest.approx([whole["a"], whole["b"]])

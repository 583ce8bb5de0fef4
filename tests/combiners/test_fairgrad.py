from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, root

from tests.combiners.gradients import PROPERTY, any_gradients, clustered, gram_of, independent, well_conditioned
from toppo.combiners import FairGrad, Status, check_gram, kkt_residual, make
from toppo.combiners.fairgrad import EPS, MAX_ITERATIONS, RESOLVED, RIDGE
from toppo_diag.analysis.solver_bench import REGIMES, regime_gram

RESIDUAL = 1e-11
"""The largest residual of a solution at alpha = 1."""


def residual(G: np.ndarray, w: np.ndarray, alpha: float = 1.0) -> float:
    """`kkt_residual` in a plain loop."""
    return max(abs(w[i] ** (1 / alpha) * sum(G[i, j] * w[j] for j in range(len(G))) - 1) for i in range(len(G)))


def test_orthogonal_gradients_have_the_closed_form():
    G = np.diag([4.0, 1e-6, 1e6])
    for alpha in (0.5, 1.0, 2.0, 5.0):
        w = FairGrad(alpha).combine(G).weights
        np.testing.assert_allclose(w, np.diagonal(G) ** (-alpha / (alpha + 1)), rtol=1e-12)


def test_two_tasks_at_alpha_1_have_the_closed_form():
    # R u = 1/u with R = [[1, r], [r, 1]] has u_1 = u_2 = (1 + r)^(-1/2).
    for r in (-0.99, -0.5, 0.0, 0.9, 1.0):
        n = np.array([1e-3, 1e4])
        out = FairGrad().combine(np.array([[1, r], [r, 1]]) * np.outer(n, n))
        np.testing.assert_allclose(out.weights, (1 + r) ** -0.5 / n, rtol=1e-12)


def test_the_convex_program_has_the_same_minimiser():
    # Equation C.2 in log w, by an independent method. BFGS stops at about the square root of rounding.
    G = gram_of(independent(np.random.default_rng(0), 12, spread=10))
    found = minimize(
        lambda y: np.exp(y) @ G @ np.exp(y) / 2 - y.sum(), np.zeros(12), method="BFGS", options={"gtol": 1e-9}
    )
    np.testing.assert_allclose(FairGrad().combine(G).weights, np.exp(found.x), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 5.0])
def test_general_alpha_solves_what_scipy_root_solves(alpha: float):
    G = gram_of(independent(np.random.default_rng(1), 8, spread=10))
    found = root(lambda y: G @ np.exp(y) - np.exp(-y / alpha), np.zeros(8), tol=1e-13)
    assert found.success
    np.testing.assert_allclose(FairGrad(alpha).combine(G).weights, np.exp(found.x), rtol=1e-9)


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_the_regimes_of_table_c1_are_solved(regime):
    for seed in range(3):
        G = regime_gram(regime, np.random.default_rng(seed))
        out = FairGrad().combine(G)
        assert out.record.status == Status.OK
        assert residual(G, out.weights) <= RESIDUAL
        assert out.record.iterations <= MAX_ITERATIONS


@pytest.mark.parametrize("rounding", [np.float64, np.float32])
def test_a_thousand_clustered_grams_are_solved(rounding: type):
    rng = np.random.default_rng(20)
    for n in range(500):
        scale, spread, mix = 10.0 ** rng.uniform(-6, 6), 10.0 ** rng.uniform(0, 8), 10.0 ** rng.uniform(-4, 1)
        J = clustered(rng, 1 + n % 50, spread, scale, mix).astype(rounding).astype(np.float64)
        G = gram_of(J).astype(rounding).astype(np.float64)
        out = FairGrad().combine(G)
        record = out.record
        assert record.status in (Status.OK, Status.AT_FLOOR)
        assert kkt_residual(G, out.weights) <= max(RESIDUAL, len(G) * record.floor)
        assert record.residual == kkt_residual(G, out.weights)
        assert record.iterations <= MAX_ITERATIONS


@given(any_gradients())
@PROPERTY
def test_every_gram_gets_finite_weights_and_a_true_record(J: np.ndarray):
    G = gram_of(J)
    out = FairGrad().combine(G)
    alive = np.diagonal(G) > 0
    assert np.isfinite(out.weights).all()
    assert (out.weights[alive] > 0).all()
    assert (out.weights[~alive] == 0).all()
    # The record's residual comes from the Gram of the live tasks, which rounds differently.
    assert out.record.residual == pytest.approx(kkt_residual(G, out.weights), rel=1e-6, abs=50 * EPS)
    if out.record.status == Status.OK:
        assert out.record.residual <= RESIDUAL
    if out.record.status == Status.AT_FLOOR:
        assert out.record.residual <= len(G) * out.record.floor
    assert (out.record.ridge > 0) == (out.record.status == Status.PARETO_STATIONARY)


@given(well_conditioned(max_spread=1e8))
@PROPERTY
def test_the_norm_is_sqrt_k(J: np.ndarray):
    # ||d||^2 is the sum of K products w_i (Gw)_i. Each is 1 up to the residual.
    d = FairGrad().combine(gram_of(J)).weights @ J
    assert d @ d == pytest.approx(len(J), rel=1e-12)


@given(well_conditioned(), st.floats(0.2, 6))
@PROPERTY
def test_general_alpha_reports_its_residual(J: np.ndarray, alpha: float):
    out = FairGrad(alpha).combine(gram_of(J))
    assert out.record.status in (Status.OK, Status.AT_FLOOR)
    assert out.record.residual == kkt_residual(gram_of(J), out.weights, alpha) <= 1e-9


@pytest.mark.parametrize("alpha", [0.5, 2.0, 5.0])
def test_general_alpha_under_spread_reaches_1e_9_or_its_floor(alpha: float):
    rng = np.random.default_rng(3)
    for n in range(100):
        G = gram_of(clustered(rng, 1 + n % 50, spread=1e8, mix=10.0 ** rng.uniform(-4, 1)))
        record = FairGrad(alpha).combine(G).record
        assert record.status in (Status.OK, Status.AT_FLOOR)
        assert record.residual <= max(1e-9, len(G) * record.floor)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.5, 5.0])
def test_a_residual_that_is_rounding_alone_has_a_status_of_its_own(alpha: float):
    """Wide spreads at an alpha far from 1, where residuals of up to 1e277 were once said to be as good as rounding."""
    rng = np.random.default_rng(3)
    seen = set()
    for n in range(60):
        G = gram_of(clustered(rng, 2 + n % 20, spread=10.0 ** rng.uniform(0, 10), mix=10.0 ** rng.uniform(-4, 1)))
        record = FairGrad(alpha).combine(G).record
        seen.add(record.status)
        known = len(G) * record.floor <= RESOLVED
        if record.status in (Status.AT_FLOOR, Status.UNRESOLVED):
            assert record.residual <= len(G) * record.floor
            assert (record.status == Status.AT_FLOOR) == known
        if record.status == Status.AT_FLOOR:
            assert record.residual <= RESOLVED
    assert Status.UNRESOLVED in seen or alpha >= 0.5


def test_duplicates_share_the_weight_of_one():
    J = independent(np.random.default_rng(4), 6)
    w = FairGrad().combine(gram_of(np.vstack([J, J]))).weights
    one = FairGrad().combine(gram_of(J)).weights
    # G w = 1/w with w = v/2 twice: G v = 2/v, so v = sqrt(2) times the solution of one set.
    np.testing.assert_allclose(w, np.tile(one / np.sqrt(2), 2), rtol=1e-12)


def test_rank_deficient_grams_with_a_common_descent_direction_are_feasible():
    J = np.random.default_rng(5).normal(size=(30, 4)) + 3
    record = FairGrad().combine(gram_of(J)).record
    assert (record.status, record.ridge) == (Status.OK, 0.0)
    assert record.residual <= RESIDUAL


def test_dead_tasks_leave_the_problem():
    J = independent(np.random.default_rng(6), 8)
    J[[2, 5]] = 0
    out = FairGrad().combine(gram_of(J))
    live = np.delete(J, [2, 5], axis=0)
    np.testing.assert_array_equal(np.delete(out.weights, [2, 5]), FairGrad().combine(gram_of(live)).weights)
    assert (out.weights[[2, 5]] == 0).all()
    assert out.record.residual <= RESIDUAL


def test_nothing_but_dead_tasks():
    out = FairGrad().combine(np.zeros((3, 3)))
    assert (out.weights == 0).all()
    assert out.record.status == Status.NO_GRADIENT


@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4])
def test_near_anti_parallel_tasks_are_solved_to_the_floor(distance: float):
    G = gram_of(np.array([[1e3, 0.0], [-1e-3, 1e-3 * distance]]))
    out = FairGrad().combine(G)
    u = out.weights * np.sqrt(np.diagonal(G))
    assert out.record.status in (Status.OK, Status.AT_FLOOR)
    assert out.record.residual <= max(RESIDUAL, 4 * EPS * u.max() ** 2)
    assert out.record.floor == pytest.approx(2 * EPS * u.max() ** 2, rel=1e-2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("distance", [1e-6, 1e-8, 0.0])
def test_anti_parallel_tasks_are_named_and_get_the_ridge_solution(alpha: float, distance: float):
    G = gram_of(np.array([[1.0, 0.0], [-1.0, distance], [0.0, 1e-3]]))
    out = FairGrad(alpha).combine(G)
    assert out.record.status == Status.PARETO_STATIONARY
    assert out.record.ridge == RIDGE
    ridged = G + RIDGE * np.diag(np.diagonal(G))
    assert kkt_residual(ridged, out.weights, alpha) <= 1e-9
    assert out.record.residual == kkt_residual(G, out.weights, alpha)


def test_the_step_shrinks_smoothly_into_the_ridge():
    # Two tasks at an angle of pi - t: ||d||^2 = 2 while feasible, and 2 (1 - r) / (1 - r + ridge) -> 0 with the ridge.
    for t in (1e-6, 1e-7, 1e-8):
        J = np.array([[1.0, 0.0], [-np.cos(t), np.sin(t)]])
        w = FairGrad().combine(gram_of(J)).weights
        assert np.linalg.norm(w @ J) <= 1.1 * np.sqrt(t**2 / RIDGE)


def test_a_matrix_that_is_no_gram_is_named_too():
    out = FairGrad().combine(np.array([[1.0, -2.0], [-2.0, 1.0]]))
    assert out.record.status == Status.PARETO_STATIONARY
    assert np.isfinite(out.weights).all()


def test_solve_many_agrees_with_solve():
    rng = np.random.default_rng(7)
    J = np.stack([clustered(rng, 10, spread=1e6, mix=0.1)[:, :22] for _ in range(150)])
    J[3, 4] = 0
    J[5, 1] = -J[5, 0]
    grams = np.stack([gram_of(j) for j in J])
    for alpha in (1.0, 2.0):
        many = make(f"fairgrad:alpha={alpha}").solve_many(grams)
        for t, gram in enumerate(grams):
            one = FairGrad(alpha).combine(gram)
            # The same Newton steps with other rounding. Each result is good to 1e-11.
            np.testing.assert_allclose(many.weights[t], one.weights, rtol=1e-9)
            assert many.status[t] == one.record.status
            assert many.ridge[t] == one.record.ridge
            assert many.residual[t] <= max(RESIDUAL, one.record.residual)
    assert many.weights.shape == (150, 10)
    assert FairGrad().solve_many(grams[:0]).weights.shape == (0, 10)


def test_large_and_small_scales_do_not_overflow():
    for scale in (1e-140, 1e-75, 1e75, 1e140):
        record = FairGrad().combine(check_gram(gram_of(independent(np.random.default_rng(8), 5) * scale))).record
        assert record.status == Status.OK


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan])
def test_alpha_must_be_positive(alpha: float):
    with pytest.raises(ValueError, match="alpha must be a positive finite number"):
        FairGrad(alpha)


def test_weights_beyond_float64_are_reported():
    # Parallel tasks of norms 1 and 1e8 at alpha = 100: their weights are 1e800 apart.
    out = FairGrad(100).combine(gram_of(np.array([[1.0, 0.0], [1e8, 0.0]])))
    assert out.record.status == Status.NOT_CONVERGED
    assert np.isfinite(out.weights).all()

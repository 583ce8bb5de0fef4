"""Each method against an independent reference: the vectors, a plain loop, a solver of scipy or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from tests.combiners.gradients import PROPERTY, any_gradients, gram_of, independent, well_conditioned
from toppo.combiners import Status, make
from toppo.combiners.cone import least_squares_in_cone, min_norm_point

RNG = np.random.default_rng


def weights(spec: str, J: np.ndarray, **kwargs) -> np.ndarray:
    return make(spec).combine(gram_of(J), **kwargs).weights


def test_mean_and_sum():
    J = RNG(0).normal(size=(4, 9))
    np.testing.assert_array_equal(weights("mean", J), np.full(4, 0.25))
    np.testing.assert_array_equal(weights("sum", J), np.ones(4))


# PCGrad


def project_vectors(J: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Yu et al. on the gradients themselves."""
    projected = J.copy()
    for i, row in enumerate(order):
        for j in row:
            dot = projected[i] @ J[j]
            if dot < 0 and J[j].any():
                projected[i] -= dot / (J[j] @ J[j]) * J[j]
    return projected


@pytest.mark.parametrize("order", ["row", "shared"])
@given(J=any_gradients(), seed=st.integers(0, 2**31))
@PROPERTY
def test_pcgrad_is_projecting_the_vectors(order: str, J: np.ndarray, seed: int):
    combiner = make(f"pcgrad:order={order}")
    drawn = combiner.draw_order(RNG(seed), len(J))
    w = combiner.combine(gram_of(J), order=drawn).weights
    summed = make("pcgrad:reduction=sum").combine(gram_of(J), order=drawn).weights
    # Each projection rounds relative to the lengths in it. Anti-parallel tasks make these lengths grow.
    scale = np.abs(w) @ np.linalg.norm(J, axis=1)
    np.testing.assert_allclose(w @ J, project_vectors(J, drawn).mean(axis=0), rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(summed, len(J) * w, rtol=1e-15)


@pytest.mark.parametrize("name", ["pcgrad", "pcgrad:order=shared", "gradvac"])
@given(K=st.integers(1, 50), seed=st.integers(0, 2**31))
@PROPERTY
def test_orders_visit_every_other_task_once(name: str, K: int, seed: int):
    order = make(name).draw_order(RNG(seed), K)
    assert order.shape == (K, K - 1)
    for i, row in enumerate(order):
        assert sorted([*row, i]) == list(range(K))


def test_a_shared_order_is_one_sequence_that_every_task_skips_itself_in():
    for seed in range(20):
        order = make("pcgrad:order=shared").draw_order(RNG(seed), 6)
        before = np.zeros((6, 6), dtype=bool)  # before[j, k]: some row meets j before k
        for row in order:
            for at, j in enumerate(row):
                before[j, row[at + 1 :]] = True
        assert not (before & before.T).any()


def test_row_orders_are_independent_and_uniform():
    orders = np.stack([make("pcgrad").draw_order(RNG(seed), 4) for seed in range(3000)])
    for i in range(4):
        _, counts = np.unique(orders[:, i], axis=0, return_counts=True)
        # Six permutations, 500 each expected; 5 standard deviations are 102.
        assert len(counts) == 6
        assert np.abs(counts - 500).max() < 102


# CAGrad


@given(J=well_conditioned(max_spread=10, min_tasks=2), c=st.sampled_from([0.1, 0.5, 0.9, 1.5]))
@PROPERTY
def test_cagrad_is_optimal(J: np.ndarray, c: float):
    """d maximises min_i <g_i, d> over the ball: certified by weak duality, with the w it was made from."""
    K = len(J)
    out = make(f"cagrad:c={c}").combine(gram_of(J))
    share = out.weights * (1 + c**2) - 1 / K  # lambda w
    g_0 = J.mean(axis=0)
    rho = c * np.linalg.norm(g_0)
    d = g_0 + share @ J
    w = share / share.sum()
    assert out.record.status == Status.OK
    assert np.linalg.norm(d - g_0) == pytest.approx(rho, rel=1e-9)
    upper = w @ J @ g_0 + rho * np.linalg.norm(w @ J)  # of min_i <g_i, d'> for every d' in the ball
    assert upper - (J @ d).min() <= 1e-9 * rho * np.linalg.norm(J, axis=1).max()


def test_cagrad_agrees_with_slsqp_as_its_authors_call_it():
    J = independent(RNG(1), 6, spread=4)
    G, c, K = gram_of(J), 0.5, 6
    radius = c * np.sqrt(G.mean()) + 1e-8

    def objective(x: np.ndarray) -> float:
        return x @ G @ np.full(K, 1 / K) + radius * np.sqrt(x @ G @ x + 1e-8)

    found = minimize(
        objective,
        np.full(K, 1 / K),
        bounds=[(0, 1)] * K,
        constraints={"type": "eq", "fun": lambda x: 1 - x.sum()},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    expected = (1 / K + radius / (np.sqrt(found.x @ G @ found.x) + 1e-8) * found.x) / (1 + c**2)
    np.testing.assert_allclose(weights("cagrad:c=0.5", J), expected, atol=1e-5)  # SLSQP's own accuracy


def test_cagrad_without_a_ball_is_the_mean():
    J = independent(RNG(2), 5)
    np.testing.assert_allclose(weights("cagrad:c=0", J), 0.2)


def test_cagrad_names_pareto_stationary_tasks_its_ball_cannot_help():
    J = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    out = make("cagrad:c=0.9").combine(gram_of(J))
    assert out.record.status == Status.PARETO_STATIONARY
    assert np.isfinite(out.weights).all()
    # g_0 = (0, 1/3) is in the dual cone itself.
    np.testing.assert_allclose(out.weights @ J * (1 + 0.81), [0, 1 / 3], atol=1e-12)


# Cones


@given(J=any_gradients(), seed=st.integers(0, 2**31))
@PROPERTY
def test_nnls_meets_its_optimality_conditions(J: np.ndarray, seed: int):
    A = J.T / np.maximum(np.linalg.norm(J, axis=1), 1e-300)
    b = RNG(seed).normal(size=len(A))
    z = least_squares_in_cone(A, b)
    gradient = A.T @ (A @ z - b)
    assert (z >= 0).all()
    assert gradient.min() >= -1e-9 * np.linalg.norm(b)
    assert np.abs(gradient[z > 0]).max(initial=0) <= 1e-9 * np.linalg.norm(b)


@given(J=well_conditioned())
@PROPERTY
def test_mgda_is_the_least_convex_combination(J: np.ndarray):
    w = weights("mgda", J)
    d = w @ J
    assert w.sum() == pytest.approx(1, rel=1e-12)
    # Its variational inequality, <g_i, d> >= ||d||^2, is necessary and sufficient.
    assert (J @ d >= d @ d * (1 - 1e-9)).all()


def test_mgda_of_two_tasks_has_a_closed_form():
    # Sener and Koltun, 2018, Equation 5: the weight of g_1 is <g_2 - g_1, g_2> / ||g_1 - g_2||^2, in [0, 1].
    for seed in range(20):
        a, b = RNG(seed).normal(size=(2, 3)) * [[1.0], [3.0]]
        first = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
        np.testing.assert_allclose(weights("mgda", np.array([a, b])), [first, 1 - first], atol=1e-12)


def test_the_least_point_of_a_hull_with_the_origin_at_a_vertex():
    np.testing.assert_array_equal(min_norm_point(np.array([[1.0, 0.0], [1.0, 0.0]])), [0, 1])


@given(J=well_conditioned())
@PROPERTY
def test_dualproj_is_the_projection(J: np.ndarray):
    """By Moreau, p is the projection of g_0 on {d : J d >= 0} if and only if three things hold.

    p is in the cone, p - g_0 = J'z with z >= 0, and p - g_0 is orthogonal to p.
    """
    p, g_0 = weights("dualproj", J) @ J, J.mean(axis=0)
    size = np.linalg.norm(J, axis=1).max() ** 2
    assert (J @ p >= -1e-9 * size).all()
    assert (weights("dualproj", J) * len(J) >= 1 - 1e-9).all()
    assert abs((p - g_0) @ p) <= 1e-9 * size


def test_upgrad_is_the_mean_of_the_projections_of_each():
    J = independent(RNG(3), 6, spread=10)

    def project(g: np.ndarray) -> np.ndarray:
        found = minimize(
            lambda d: (d - g) @ (d - g),
            g,
            jac=lambda d: 2 * (d - g),
            constraints={"type": "ineq", "fun": lambda d: J @ d, "jac": lambda d: J},
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        return found.x

    expected = np.mean([project(g) for g in J], axis=0)
    np.testing.assert_allclose(weights("upgrad", J) @ J, expected, atol=1e-6)  # SLSQP's own accuracy


# Linear algebra


@given(J=well_conditioned())
@PROPERTY
def test_imtl_g_projects_equally_on_all(J: np.ndarray):
    w = weights("imtl-g", J)
    assert w.sum() == pytest.approx(1, rel=1e-9)
    d = w @ J
    projections = J @ d / np.linalg.norm(J, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=0, atol=1e-9 * np.linalg.norm(J, axis=1).max())


@given(J=well_conditioned(max_spread=10))
@PROPERTY
def test_aligned_mtl_averages_the_aligned_gradients(J: np.ndarray):
    # The aligned gradients are sigma_min U V', of the thin SVD J = U S V' (Algorithm 1).
    U, S, Vt = np.linalg.svd(J, full_matrices=False)
    expected = S.min() * (U @ Vt).mean(axis=0)
    np.testing.assert_allclose(weights("aligned-mtl", J) @ J, expected, rtol=0, atol=1e-8 * S.max())


@given(J=well_conditioned())
@PROPERTY
def test_config_is_its_equation(J: np.ndarray):
    units = J / np.linalg.norm(J, axis=1, keepdims=True)
    v = np.linalg.pinv(units).sum(axis=1)
    v /= np.linalg.norm(v)
    np.testing.assert_allclose(weights("config", J) @ J, (J @ v).sum() * v, rtol=0, atol=1e-9 * np.abs(J @ v).sum())


@pytest.mark.parametrize("spec", ["imtl-g", "config"])
def test_anti_parallel_tasks_have_no_such_direction(spec: str):
    out = make(spec).combine(gram_of(np.array([[1.0, 0.0], [-1.0, 0.0]])))
    assert out.record.status == Status.PARETO_STATIONARY
    assert (out.weights == 0).all()


# GradVac


def vaccinate(J: np.ndarray, order: np.ndarray, phi_hat: np.ndarray, beta: float) -> np.ndarray:
    """Algorithm 1 of Wang et al. on the gradients themselves; moves phi_hat."""
    out = J.copy()
    for i, row in enumerate(order):
        for j in row:
            own, other = np.linalg.norm(out[i]), np.linalg.norm(J[j])
            phi = out[i] @ J[j] / (own * other)
            aim = phi_hat[i, j]
            if phi < aim:
                sine, aim_sine = np.sqrt(1 - phi**2), np.sqrt(1 - aim**2)
                out[i] += own * (aim * sine - phi * aim_sine) / (other * aim_sine) * J[j]
            phi_hat[i, j] = (1 - beta) * aim + beta * phi
    return out.mean(axis=0)


@given(seed=st.integers(0, 2**31), K=st.integers(1, 20))
@PROPERTY
def test_gradvac_is_vaccinating_the_vectors(seed: int, K: int):
    rng = RNG(seed)
    combiner = make("gradvac:beta=0.3")
    phi_hat = np.zeros((K, K))
    for _ in range(3):
        J = independent(rng, K, spread=10)
        order = combiner.draw_order(rng, K)
        expected = vaccinate(J, order, phi_hat, beta=0.3)
        w = combiner.combine(gram_of(J), order=order).weights
        np.testing.assert_allclose(w @ J, expected, rtol=0, atol=1e-10 * (np.abs(w) @ np.linalg.norm(J, axis=1)))
        np.testing.assert_allclose(combiner.state()["phi_hat"], phi_hat, atol=1e-10)


# Nash-MTL


def test_nash_mtl_solves_the_bargaining_problem():
    """max sum_i log <g_i, d> over ||d|| <= 1 (Navon et al., Equation 1), by SLSQP on d."""
    J = independent(RNG(4), 4, spread=10)
    basis = np.linalg.qr(J.T)[0]
    coordinates = J @ basis
    start = weights("mean", J) @ coordinates
    found = minimize(
        lambda d: -np.log(np.maximum(coordinates @ d, 1e-12)).sum(),
        start / np.linalg.norm(start),
        constraints={"type": "ineq", "fun": lambda d: 1 - d @ d},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    # The step is shortened to length 1 because sqrt(||G||_F K) is more than that here.
    J_long = 100 * J
    np.testing.assert_allclose(weights("nash-mtl", J_long) @ J_long, basis @ found.x, atol=1e-5)


@given(J=well_conditioned(), max_norm=st.floats(1e-3, 1e3))
@PROPERTY
def test_nash_mtl_is_fairgrad_at_alpha_1_except_for_its_length(J: np.ndarray, max_norm: float):
    d, fair = weights(f"nash-mtl:max_norm={max_norm!r}", J) @ J, weights("fairgrad", J) @ J
    length = min(max_norm, np.sqrt(np.linalg.norm(gram_of(J)) * len(J)))
    np.testing.assert_allclose(d, fair / np.linalg.norm(fair) * length, rtol=0, atol=1e-10 * length)


# Losses


def test_dwa_follows_its_equation():
    losses = RNG(5).uniform(0.5, 2, size=(8, 3))
    combiner = make("dwa:temperature=2,period=2")
    averages = losses.reshape(4, 2, 3).mean(axis=1)
    for t, loss in enumerate(losses):
        w = combiner.combine(np.eye(3), losses=loss).weights
        epoch = t // 2
        if epoch < 2:
            np.testing.assert_array_equal(w, np.ones(3))
        else:
            e = np.exp(averages[epoch - 1] / averages[epoch - 2] / 2)
            np.testing.assert_allclose(w, 3 * e / e.sum(), rtol=1e-12)


def test_uncertainty_weighting_comes_to_rest_at_half_the_inverse_loss():
    losses = np.array([0.1, 1.0, 5.0])
    combiner = make("uw:lr=0.1")
    assert combiner.combine(np.eye(3), losses=losses).weights == pytest.approx(0.5)
    for _ in range(2000):
        w = combiner.combine(np.eye(3), losses=losses).weights
    np.testing.assert_allclose(w, 1 / (2 * losses), rtol=1e-6)


def test_famo_starts_from_inverse_losses_and_turns_to_the_task_that_lags():
    combiner = make("famo")
    losses = np.array([1.0, 2.0])
    np.testing.assert_allclose(combiner.combine(np.eye(2), losses=losses).weights, [2 / 3, 1 / 3], rtol=1e-12)
    for _ in range(30):
        losses = losses * [0.9, 1.0]  # only the first task improves
        w = combiner.combine(np.eye(2), losses=losses).weights
    z = w * losses / (w @ losses)
    assert z[1] > 0.6
    assert w.sum() == pytest.approx(1)


def test_losses_alone_decide_the_loss_based_weights():
    losses = RNG(6).uniform(0.1, 1, size=(4, 5))
    for name in ("dwa", "uw", "famo"):
        one, other = make(name), make(name)
        for t, loss in enumerate(losses):
            a = one.combine(np.eye(5), losses=loss).weights
            b = other.combine(gram_of(RNG(t).normal(size=(5, 5))), losses=loss).weights
            np.testing.assert_array_equal(a, b)

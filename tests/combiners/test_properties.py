"""The claims of every combiner in the registry, and what every combiner must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.combiners.gradients import PROPERTY, any_gradients, gram_of, well_conditioned
from toppo.combiners import Combination, Combiner, Status, make, names

SPECS = [
    *names(torch_free=True),
    "fairgrad:alpha=2",
    "fairgrad:alpha=0.5",
    "pcgrad:order=shared,reduction=sum",
    "cagrad:c=0.9",
    "gradvac:beta=0.5,reduction=sum",
    "dwa:period=2",
]
NEEDS_SOLUTION = {"fairgrad", "fairgrad-paper", "nash-mtl"}
"""Methods whose claims hold for Grams with a solution."""

every_spec = pytest.mark.parametrize("spec", SPECS)


def step(combiner: Combiner, J: np.ndarray, seed: int = 0, losses: np.ndarray | None = None) -> Combination:
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.1, 2, len(J)) if losses is None else losses
    return combiner.combine(gram_of(J), losses=losses, order=combiner.draw_order(rng, len(J)))


def reached(J: np.ndarray, weights: np.ndarray) -> float:
    """sum_i |w_i| ||g_i||, the scale of the rounding of d = J'w."""
    return float(np.abs(weights) @ np.linalg.norm(J, axis=1))


def claiming(claim: str) -> list[str]:
    return [spec for spec in SPECS if getattr(make(spec).claims, claim)]


@every_spec
@given(J=any_gradients())
@PROPERTY
def test_weights_are_finite_and_one_per_task(spec: str, J: np.ndarray):
    out = step(make(spec), J)
    assert out.weights.shape == (len(J),)
    assert out.weights.dtype == np.float64
    assert np.isfinite(out.weights).all()
    assert np.isfinite(out.record.residual)
    assert isinstance(out.record.status, Status)


@pytest.mark.parametrize("spec", claiming("nonnegative"))
@given(J=any_gradients())
@PROPERTY
def test_the_direction_lies_in_the_cone(spec: str, J: np.ndarray):
    """Theorem C.1."""
    combiner = make(spec)
    for call in range(3):  # stateful methods have to stay there
        assert (step(combiner, J, seed=call).weights >= 0).all()


@pytest.mark.parametrize("spec", claiming("non_conflicting"))
@given(J=any_gradients())
@PROPERTY
def test_no_task_is_conflicted_with(spec: str, J: np.ndarray):
    out = step(make(spec), J)
    if out.record.status in (Status.PARETO_STATIONARY, Status.NOT_CONVERGED):
        return
    # NNLS is good to about K eps of the vectors. FairGrad's (G w)_i = 1 / w_i is positive by far more.
    tolerance = 1e-12 * np.linalg.norm(J, axis=1) * reached(J, out.weights)
    assert (J @ (out.weights @ J) >= -tolerance).all()


@pytest.mark.parametrize("spec", claiming("equivariant"))
@given(J=well_conditioned(), seed=st.integers(0, 2**31))
@PROPERTY
def test_renumbering_the_tasks_renumbers_the_weights(spec: str, J: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    to = rng.permutation(len(J))
    losses = rng.uniform(0.1, 2, len(J))
    one, other = make(spec), make(spec)
    for _ in range(2):
        order = one.draw_order(rng, len(J))
        w = one.combine(gram_of(J), losses=losses, order=order).weights
        # Task to[i] is now number i: row i of the order is row to[i] of the old one, in new numbers.
        renumbered = None if order is None else np.argsort(to)[order[to]]
        v = other.combine(gram_of(J[to]), losses=losses[to], order=renumbered).weights
        # The order of summation differs. pinv and eigh amplify this by the condition number, here up to 1e4 from norms.
        np.testing.assert_allclose(v, w[to], rtol=1e-6, atol=1e-8 * np.abs(w).max())


@pytest.mark.parametrize("spec", claiming("homogeneous"))
@given(J=well_conditioned(), c=st.floats(1e-6, 1e6))
@PROPERTY
def test_a_common_factor_passes_through(spec: str, J: np.ndarray, c: float):
    w, v = step(make(spec), J).weights, step(make(spec), c * J).weights
    # d(cJ) = c d(J) means equal weights, up to how well J conditions them.
    np.testing.assert_allclose(v, w, rtol=1e-6, atol=1e-8 * np.abs(w).max())


@pytest.mark.parametrize("spec", claiming("linear_under_scaling"))
@given(J=well_conditioned(), seed=st.integers(0, 2**31))
@PROPERTY
def test_the_direction_is_linear_in_factors_of_the_tasks(spec: str, J: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.1, 10, size=(2, len(J), 1))

    def d(c: np.ndarray) -> np.ndarray:
        return step(make(spec), c * J, losses=np.ones(len(J))).weights @ (c * J)

    np.testing.assert_allclose(d(a) + d(b), d(a + b), rtol=0, atol=1e-8 * np.linalg.norm(d(a + b)))


@pytest.mark.parametrize("spec", claiming("scale_invariant"))
@given(J=well_conditioned(), seed=st.integers(0, 2**31))
@PROPERTY
def test_the_direction_ignores_the_scales_of_the_tasks(spec: str, J: np.ndarray, seed: int):
    c = 10.0 ** np.random.default_rng(seed).uniform(-4, 4, size=(len(J), 1))
    d, scaled = step(make(spec), J).weights @ J, step(make(spec), c * J).weights @ (c * J)
    # Theorem 1, to a relative 1e-12.
    assert np.linalg.norm(scaled - d) <= 1e-12 * np.linalg.norm(d)


@every_spec
def test_a_saved_state_goes_on_exactly(spec: str):
    rng = np.random.default_rng(1)
    J = rng.normal(size=(5, 6, 20))
    losses = rng.uniform(0.1, 2, size=(5, 6))
    whole, before, after = make(spec), make(spec), make(spec)
    for t in range(5):
        one = step(whole, J[t], seed=t, losses=losses[t]).weights
        if t == 3:
            after.restore({name: value.copy() for name, value in before.state().items()})
        part = after if t >= 3 else before
        np.testing.assert_array_equal(step(part, J[t], seed=t, losses=losses[t]).weights, one)
    assert set(whole.state()) <= set(whole.state_names)
    assert bool(whole.state()) == bool(whole.state_names)
    whole.restore({})
    np.testing.assert_array_equal(
        step(whole, J[0], losses=losses[0]).weights, step(make(spec), J[0], losses=losses[0]).weights
    )


@every_spec
def test_a_state_that_is_handed_out_is_not_the_combiners_own(spec: str):
    combiner = make(spec)
    J = np.random.default_rng(2).normal(size=(4, 10))
    step(combiner, J)
    state = combiner.state()
    kept = {name: value.copy() for name, value in state.items()}
    step(combiner, 2 * J, seed=1)
    for name, value in state.items():
        np.testing.assert_array_equal(value, kept[name])


@every_spec
def test_solve_many_is_combine_in_turn(spec: str):
    rng = np.random.default_rng(3)
    grams = np.stack([gram_of(rng.normal(size=(6, 20))) for _ in range(4)])
    losses = rng.uniform(0.1, 2, size=(4, 6))
    one, many = make(spec), make(spec)
    orders = [one.draw_order(rng, 6) for _ in grams]
    stacked = many.solve_many(grams, losses=losses, orders=np.stack(orders) if one.needs_order else None)
    for t, gram in enumerate(grams):
        out = one.combine(gram, losses=losses[t], order=orders[t])
        np.testing.assert_allclose(stacked.weights[t], out.weights, rtol=1e-10)
        assert stacked.status[t] == out.record.status


@every_spec
def test_one_task_moves_along_its_own_gradient(spec: str):
    out = step(make(spec), np.array([[3.0, 4.0]]))
    assert out.weights[0] > 0


@every_spec
def test_dead_tasks_do_no_harm(spec: str):
    J = np.random.default_rng(4).normal(size=(5, 20))
    J[1] = 0
    assert np.isfinite(step(make(spec), J).weights).all()
    dead = step(make(spec), np.zeros((3, 4)))
    assert np.isfinite(dead.weights).all()


@every_spec
def test_a_stateful_combiner_refuses_another_number_of_tasks(spec: str):
    combiner = make(spec)
    step(combiner, np.eye(4))
    if combiner.state_names:
        with pytest.raises(ValueError, match="shape"):
            step(combiner, np.eye(5))
    else:
        step(combiner, np.eye(5))

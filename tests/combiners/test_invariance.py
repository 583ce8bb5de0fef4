"""Theorem 1 and Corollary 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.combiners.gradients import PROPERTY, gram_of, independent, well_conditioned
from toppo.combiners import FairGrad, invariance, make, popart_scales
from toppo.combiners.invariance import rescale


@given(J=well_conditioned(max_spread=1e4), seed=st.integers(0, 2**31))
@PROPERTY
def test_theorem_1_holds_at_alpha_1(J: np.ndarray, seed: int):
    c = 10.0 ** np.random.default_rng(seed).uniform(-4, 4, size=len(J))
    found = invariance(gram_of(J), c)
    assert found.distance <= 1e-12
    assert found.cosine == pytest.approx(1, abs=1e-12)
    assert found.norm_error <= 1e-12
    assert found.norm == pytest.approx(np.sqrt(len(J)), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_theorem_1_fails_at_other_alphas(alpha: float):
    G = gram_of(independent(np.random.default_rng(0), 6, spread=10))
    found = invariance(G, np.geomspace(0.1, 10, 6), FairGrad(alpha))
    assert found.distance > 0.1
    assert found.cosine < 0.99
    assert found.norm_error > 0.1


def test_corollary_1_popart_is_absorbed():
    rng = np.random.default_rng(1)
    J, sigma = independent(rng, 10, spread=100), rng.uniform(0.1, 30, size=10)
    raw = FairGrad().combine(gram_of(J)).weights @ J
    scaled = J / sigma[:, None] ** 2
    popart = FairGrad().combine(gram_of(scaled)).weights @ scaled
    np.testing.assert_allclose(popart, raw, rtol=0, atol=1e-12 * np.linalg.norm(raw))
    assert invariance(gram_of(J), popart_scales(sigma)).distance <= 1e-12


@given(J=well_conditioned(max_spread=10), seed=st.integers(0, 2**31))
@PROPERTY
def test_it_measures_what_the_vectors_show(J: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    c = rng.uniform(0.1, 10, size=len(J))
    combiner = make("cagrad")
    found = invariance(gram_of(J), c, combiner)
    d = combiner.combine(gram_of(J)).weights @ J
    rescaled = combiner.combine(rescale(gram_of(J), c)).weights @ (c[:, None] * J)
    size = np.linalg.norm(d)
    assert found.distance == pytest.approx(np.linalg.norm(rescaled - d) / size, rel=1e-6, abs=1e-8)
    assert found.cosine == pytest.approx(d @ rescaled / size / np.linalg.norm(rescaled), abs=1e-8)
    assert found.norm_rescaled == pytest.approx(np.linalg.norm(rescaled), rel=1e-8)


def test_a_tiny_difference_is_not_lost_in_cancellation():
    # d~ - d = 1e-13 g_1 exactly. A difference of the two vectors would keep three digits of it.
    class Nudge(FairGrad):
        def _combine(self, gram, losses, order):
            out = super()._combine(gram, losses, order)
            if gram[0, 0] != 1:
                out.weights[0] += 1e-13 / 2
            return out

    found = invariance(np.eye(2), np.array([2.0, 1.0]), Nudge())
    assert found.distance == pytest.approx(1e-13 / np.sqrt(2), rel=1e-2)


def test_a_stateful_combiner_is_left_as_it_was():
    rng = np.random.default_rng(2)
    combiner = make("gradvac")
    G = gram_of(independent(rng, 4))
    order = combiner.draw_order(rng, 4)
    combiner.combine(G, order=order)
    state = combiner.state()
    assert invariance(G, np.ones(4), combiner, order=order).distance == 0
    np.testing.assert_array_equal(combiner.state()["phi_hat"], state["phi_hat"])


def test_dead_tasks_do_not_count_in_the_norm():
    assert invariance(np.diag([1.0, 0.0, 2.0]), np.ones(3)).norm_error <= 1e-12


@pytest.mark.parametrize("c", [np.ones(2), np.array([1.0, 1.0, 0.0]), np.array([1.0, 1.0, np.inf])])
def test_bad_factors_are_refused(c: np.ndarray):
    with pytest.raises(ValueError, match="one positive finite factor for each of the 3 tasks"):
        invariance(np.eye(3), c)


def test_bad_sigmas_are_refused():
    with pytest.raises(ValueError, match="every sigma"):
        popart_scales(np.array([1.0, 0.0]))

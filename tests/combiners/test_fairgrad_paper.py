"""Algorithm C.2: its steps and tiers, and the errors that its residual does not see."""

from __future__ import annotations

import numpy as np
import pytest

from tests.combiners.gradients import gram_of, independent
from toppo.combiners import FairGrad, FairGradPaper, Status, kkt_residual
from toppo.combiners.fairgrad_paper import ETA, absolute_residual, diagonal_start, solve_paper


def test_a_diagonal_gram_is_solved_by_the_warm_start_alone():
    G = np.diag([4.0, 1e-4, 1e6])
    out = solve_paper(G, alpha=2.0)
    assert (out.record.status, out.record.iterations) == (Status.OK, 0)
    np.testing.assert_allclose(out.weights, np.diagonal(G) ** (-2 / 3), rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_it_agrees_with_fairgrad_as_far_as_it_goes(alpha: float):
    G = gram_of(independent(np.random.default_rng(0), 10, spread=10))
    out = FairGradPaper(alpha, eta=1e-10).combine(G)
    assert absolute_residual(G, out.weights, alpha) <= 1e-10
    np.testing.assert_allclose(out.weights, FairGrad(alpha).combine(G).weights, rtol=1e-8)


def test_it_stops_as_soon_as_the_absolute_residual_is_below_eta():
    G = gram_of(independent(np.random.default_rng(1), 10))
    out = FairGradPaper().combine(G)
    assert absolute_residual(G, out.weights) <= ETA
    fewer = FairGradPaper(max_iterations=out.record.iterations).combine(G)
    assert out.record.iterations == 0 or fewer.record.status == Status.LEAST_SQUARES


def test_the_absolute_residual_accepts_wrong_weights_and_the_record_says_so():
    J = independent(np.random.default_rng(2), 10)
    J[:5] *= 1e-6
    G = gram_of(J)
    cold = solve_paper(G, start=np.full(10, -np.log(10)))
    assert cold.record.status == Status.OK
    assert absolute_residual(G, cold.weights) <= ETA
    assert cold.record.residual == kkt_residual(G, cold.weights) > 0.9


def test_no_newton_steps_is_tier_2():
    G = gram_of(independent(np.random.default_rng(3), 5))
    out = solve_paper(G, start=np.zeros(5), max_iterations=1)
    assert out.record.status == Status.LEAST_SQUARES
    assert absolute_residual(G, out.weights) < 1e-4  # scipy's own default accuracy


def test_nothing_left_is_tier_3():
    # Products beyond the largest float: no residual is finite at the start.
    out = solve_paper(np.diag([1e308, 1e308]) * 1.0, start=np.array([50.0, 50.0]))
    assert out.record.status == Status.UNIFORM
    np.testing.assert_array_equal(out.weights, [0.5, 0.5])


def test_a_dead_task_starts_at_the_cap():
    assert diagonal_start(np.diag([1.0, 0.0]), 1.0)[1] > 50
    out = FairGradPaper().combine(np.diag([1.0, 0.0]))
    assert out.weights[1] == pytest.approx(np.exp(50))

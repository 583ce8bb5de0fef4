"""Norms, spread, cosines and contributions against the gradient vectors and closed forms."""

import numpy as np
import pytest

from toppo.combiners import make
from toppo.combiners.geometry import contributions, cosines, direction_norm, gradient_norms, mean_abs_cosine, spread

RNG = np.random.default_rng(0)
J = RNG.standard_normal((6, 40)) * np.logspace(-3, 2, 6)[:, None]
J[2] = 0  # a dead task
G = J @ J.T


def test_against_the_vectors():
    norms = np.linalg.norm(J, axis=1)
    np.testing.assert_allclose(gradient_norms(G), norms, rtol=1e-14)
    live = [0, 1, 3, 4, 5]
    assert spread(norms) == pytest.approx(norms[live].max() / norms[live].min())
    expected = [abs(J[i] @ J[j]) / (norms[i] * norms[j]) for i in live for j in live if i != j]
    assert mean_abs_cosine(G) == pytest.approx(np.mean(expected), rel=1e-12)
    c = cosines(G)
    np.testing.assert_allclose(np.diag(c)[live], 1, rtol=1e-14)
    assert not c[2].any()
    assert not c[:, 2].any()
    w = RNG.random(6)
    np.testing.assert_allclose(contributions(G, w), np.linalg.norm(w[:, None] * J, axis=1), rtol=1e-13)
    assert direction_norm(G, w) == pytest.approx(np.linalg.norm(w @ J), rel=1e-12)


def test_the_papers_example_of_ten_to_one():
    """Orthogonal gradients of lengths 10 and 1: their mean has cosine 0.995 to the first. FairGrad balances them."""
    gram = np.diag([100.0, 1.0])
    mean = np.array([0.5, 0.5])
    cosine = (gram @ mean)[0] / (10 * direction_norm(gram, mean))
    assert round(100 * float(cosine), 1) == 99.5
    fair = make("fairgrad:alpha=1").combine(gram).weights
    np.testing.assert_allclose(fair, [0.1, 1.0], rtol=1e-14)  # w = 1 / ||g||
    np.testing.assert_allclose(contributions(gram, fair), 1, rtol=1e-14)


def test_stacks_carry_over():
    stack = np.stack([np.stack([G, 4 * G]), np.stack([np.eye(6), np.zeros((6, 6))])])
    assert spread(gradient_norms(stack)).shape == (2, 2)
    np.testing.assert_allclose(mean_abs_cosine(stack), [[mean_abs_cosine(G)] * 2, [0, 0]], rtol=1e-12)
    assert spread(gradient_norms(stack))[1, 1] == 1  # nobody alive
    assert np.isfinite(cosines(stack)).all()

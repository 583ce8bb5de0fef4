"""Bad input gives one ValueError that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from toppo.combiners import check_gram, make, names

GOOD = np.eye(3)


def with_entry(i: int, j: int, value: float) -> np.ndarray:
    G = GOOD.copy()
    G[i, j] = value
    return G


BAD = [
    (np.ones((2, 3)), "square matrix"),
    (np.ones(3), "square matrix"),
    (np.ones((2, 2, 2)), "square matrix"),
    (np.zeros((0, 0)), "no tasks"),
    (with_entry(0, 1, np.nan), r"not finite: G\[0, 1\] = nan"),
    (with_entry(2, 2, np.inf), r"not finite: G\[2, 2\] = inf"),
    (with_entry(1, 1, -1.0), r"G\[1, 1\] = -1"),
    (with_entry(0, 1, 0.5), "symmetric"),
]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("gram", "says"), BAD)
def test_every_combiner_refuses_what_is_no_gram(name: str, gram: np.ndarray, says: str):
    combiner = make(name)
    with pytest.raises(ValueError, match=says):
        combiner.combine(gram, losses=np.ones(3), order=np.array([[1, 2], [0, 2], [0, 1]]))


def test_the_rounding_of_float32_products_is_averaged_away():
    J = np.random.default_rng(0).normal(size=(5, 100)) * 10.0 ** np.arange(-2, 3)[:, None]
    G = J @ J.T
    noisy = G * (1 + 1e-6 * np.random.default_rng(1).uniform(-1, 1, size=G.shape))
    checked = check_gram(noisy)
    np.testing.assert_array_equal(checked, checked.T)
    np.testing.assert_allclose(checked, G, rtol=1e-6)


def test_a_stack_names_the_gram_at_fault():
    grams = np.stack([GOOD, with_entry(0, 0, np.nan)])
    with pytest.raises(ValueError, match="Gram 1 of 2: the Gram is not finite"):
        make("fairgrad").solve_many(grams)
    with pytest.raises(ValueError, match=r"\(T, K, K\)"):
        make("fairgrad").solve_many(GOOD)


@pytest.mark.parametrize("name", ["dwa", "uw", "famo"])
def test_losses_are_checked(name: str):
    combiner = make(name)
    for losses, says in [
        (None, "pass losses"),
        (np.ones(2), "one loss per task"),
        (np.array([1, np.nan, 1]), "loss of task 1 is not finite"),
        (np.array([1.0, 1.0, -2.0]), "positive losses, but the loss of task 2 is -2"),
    ]:
        with pytest.raises(ValueError, match=says):
            combiner.combine(GOOD, losses=losses)


@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
def test_orders_are_checked(name: str):
    combiner = make(name)
    for order, says in [
        (None, "pass order"),
        (np.ones((3, 2)), "dtype"),
        (np.ones((3, 3), dtype=int), r"shape \(3, 2\)"),
        (np.array([[1, 2], [0, 2], [0, 2]]), "row 2"),
        (np.array([[1, 1], [0, 2], [0, 1]]), "row 0"),
    ]:
        with pytest.raises(ValueError, match=says):
            combiner.combine(GOOD, order=order)


def test_another_methods_state_is_refused():
    with pytest.raises(ValueError, match="fairgrad carries nothing, but the state to restore holds phi_hat"):
        make("fairgrad").restore({"phi_hat": np.zeros((3, 3))})

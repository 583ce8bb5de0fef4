"""The scalars of a Gram against the definitions written out for the present tasks alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.combiners.gradients import PROPERTY
from toppo.combiners.geometry import contribution_spread
from toppo.combiners.scalars import STARVED, scalars


def written_out(J: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """The scalars of K live tasks by loops over vectors."""
    k, d = len(J), w @ J
    lengths = [math.sqrt(g @ g) for g in J]
    cosines = [J[i] @ J[j] / lengths[i] / lengths[j] for i in range(k) for j in range(i + 1, k)]
    parts = [abs(w[i]) * lengths[i] for i in range(k)]
    shares = [w[i] * (J[i] @ d) / (d @ d) for i in range(k)]
    return {
        "spread": max(lengths) / min(lengths),
        "mean_abs_cosine": sum(map(abs, cosines)) / len(cosines),
        "negative_pairs": sum(c < 0 for c in cosines) / len(cosines),
        "top_1_mass": max(parts) / sum(parts),
        "starved_tasks": sum(share < STARVED / k for share in shares),
        **{f"norm/{i}": length for i, length in enumerate(lengths)},
        **{f"share/{i}": share for i, share in enumerate(shares)},
    }


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 5), absent=st.integers(0, 3))
def test_absent_tasks_change_nothing_for_the_others(seed: int, k: int, absent: int):
    rng = np.random.default_rng(seed)
    J, w = rng.standard_normal((k, 8)) * rng.uniform(0.1, 10, (k, 1)), rng.uniform(0.1, 1, k)
    here = np.sort(rng.permutation(k + absent)[:k])
    gram, weights = np.full((k + absent, k + absent), np.nan), np.full(k + absent, np.nan)
    gram[np.ix_(here, here)], weights[here] = J @ J.T, w
    found = scalars(gram, weights).named("side", [f"task {i}" for i in range(k + absent)])
    for name, value in written_out(J, w).items():
        kind, _, i = name.partition("/")
        shown = f"side/{kind}/task {here[int(i)]}" if i else f"side/{kind}"
        assert found.pop(shown) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert list(found) == ["side/effective_rank"]  # compared with its definition in test_analysis


def test_a_stack_is_its_grams_one_by_one():
    J = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    grams, weights = J @ J.mT, np.abs(J[..., 0])
    grams[1, 2, 3] = grams[1, 2, :, 3] = np.nan
    stack = scalars(grams, weights)
    for n in np.ndindex(2, 3):
        one = scalars(grams[n], weights[n])
        for whole, single in ((stack.whole, one.whole), (stack.by_task, one.by_task)):
            for name in whole:
                np.testing.assert_allclose(whole[name][n], single[name], rtol=1e-12)


def test_without_weights_the_step_is_the_mean():
    gram = np.array([[4.0, 1.0], [1.0, 1.0]])
    assert scalars(gram).named("s", "ab") == scalars(gram, np.full(2, 0.5)).named("s", "ab")


def test_edge_cases():
    nobody = scalars(np.full((2, 2), np.nan))
    assert nobody.named("s", "ab") == {}
    dead = scalars(np.diag([0.0, 4.0])).named("s", "ab")
    assert (dead["s/norm/a"], dead["s/share/a"], dead["s/starved_tasks"], dead["s/top_1_mass"]) == (0, 0, 1, 1)
    assert not {"s/spread", "s/mean_abs_cosine", "s/negative_pairs"} & set(dead)  # one gradient has nothing to compare
    assert scalars(np.diag([np.inf, 4.0, 1.0])).named("s", "abc")["s/spread"] == 2
    alone = scalars(np.array([[9.0]])).named("s", "a")
    assert alone == {"s/effective_rank": 1, "s/norm/a": 3, "s/share/a": 1}


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 6))
def test_numbers_that_compare_tasks_need_two_of_them(seed: int, k: int):
    rng = np.random.default_rng(seed)
    J = rng.standard_normal((8, k, 9))
    present = rng.random((8, k)) < 0.5
    grams = np.where(present[:, :, None] & present[:, None, :], J @ J.mT, np.nan)
    found = scalars(grams)
    for name in ("spread", "mean_abs_cosine", "negative_pairs", "top_1_mass", "starved_tasks"):
        assert (np.isfinite(found.whole[name]) == (present.sum(axis=1) >= 2)).all(), name


def test_a_gram_without_weights_has_no_shares():
    found = scalars(np.stack([np.diag([4.0, 1.0])] * 2), np.array([[1.0, 1.0], [np.nan, np.nan]]))
    assert found.by_task["share"][0] == pytest.approx([0.8, 0.2])
    assert np.isnan(found.by_task["share"][1]).all()
    for name in ("top_1_mass", "starved_tasks"):
        assert np.isfinite(found.whole[name]).tolist() == [True, False]
    assert found.whole["spread"].tolist() == [2, 2]  # of the gradients alone


def test_a_live_task_that_contributes_nothing_makes_the_spread_of_contributions_infinite():
    gram = np.diag([4.0, 1.0, 0.0])
    w = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 5.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(contribution_spread(np.broadcast_to(gram, (3, 3, 3)), w), [2.0, np.inf, np.nan])
    assert np.isnan(contribution_spread(np.diag([4.0, 0.0]), np.ones(2)))

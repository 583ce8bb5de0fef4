"""The shapes in the annotations, checked while the code runs."""

from __future__ import annotations

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import jaxtyped

from tests.combiners.gradients import gram_of, independent
from toppo.combiners import (
    FairGrad,
    check_gram,
    fairgrad,
    fairgrad_paper,
    gram,
    invariance,
    kkt_residual,
    make,
    names,
    pcgrad,
)
from toppo.combiners.cone import least_squares_in_cone, min_norm_point, unit_factor, worst_conflict

G = gram_of(independent(np.random.default_rng(0), 5))


def checked(function):
    return jaxtyped(typechecker=beartype)(function)


@pytest.mark.parametrize("name", [name for name in names() if name != "torchjd"])
def test_combiners_keep_their_shapes(name: str):
    combiner = make(name)
    if combiner.needs_torch:
        pytest.importorskip("torch")
    order = combiner.draw_order(np.random.default_rng(0), 5)
    out = checked(type(combiner)._combine)(combiner, G, np.ones(5), order)
    assert out.weights.shape == (5,)


def test_functions_keep_their_shapes():
    w = checked(fairgrad.solve)(G).weights
    grams = np.stack([G, 2 * G])
    assert checked(kkt_residual)(G, w) <= 1e-11
    assert checked(kkt_residual)(grams, np.stack([w, w])).shape == (2,)
    assert checked(FairGrad._solve_many)(FairGrad(), grams, None, None).weights.shape == (2, 5)
    assert checked(fairgrad_paper.solve_paper)(G).weights.shape == (5,)
    assert checked(check_gram)(G).shape == (5, 5)
    assert checked(gram.check_grams)(grams).shape == (2, 5, 5)
    order = checked(pcgrad.draw_row_orders)(np.random.default_rng(0), 5)
    assert checked(pcgrad.project_conflicts)(G, order).shape == (5, 5)
    factor = checked(unit_factor)(G)
    assert checked(least_squares_in_cone)(factor, np.ones(5)).shape == (5,)
    assert checked(min_norm_point)(factor).shape == (5,)
    assert checked(worst_conflict)(G, w) == 0
    assert checked(invariance)(G, np.ones(5)).distance == 0


def test_a_wrong_shape_is_caught_by_these_checks():
    with pytest.raises(Exception, match="type"):
        checked(kkt_residual)(G, np.ones(4))

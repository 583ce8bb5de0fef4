"""Dead tasks, those without a gradient: `Combiner.combine` deals with them, in one place for all methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from tests.combiners.gradients import gram_of, independent
from toppo.combiners import (
    Claims,
    Combination,
    Combiner,
    DeadTasks,
    Record,
    Status,
    alive_tasks,
    geometry,
    make,
    names,
)

DEAD = [1, 4]
LIVE = [0, 2, 3, 5, 6]
J_LIVE = independent(np.random.default_rng(0), 5, spread=30)
J = np.zeros((7, J_LIVE.shape[1]))
J[LIVE] = J_LIVE
G, G_LIVE = gram_of(J), gram_of(J_LIVE)


def kinds(how: DeadTasks) -> list[str]:
    return [name for name in names(torch_free=True) if make(name).dead_tasks == how]


DROP, COUNT, KEEP = kinds("drop"), kinds("count"), kinds("keep")


def test_every_method_says_what_it_does_with_dead_tasks():
    assert set(DROP) == {"fairgrad", "mgda", "imtl-g", "nash-mtl", "config"}
    assert set(COUNT) == {"cagrad", "upgrad", "dualproj"}
    assert {"mean", "sum", "fairgrad-paper", "pcgrad", "gradvac", "aligned-mtl", "dwa", "uw", "famo"} == set(KEEP)
    assert make("taskforce").dead_tasks == make("torchjd").dead_tasks == "keep"


@pytest.mark.parametrize("spec", [*DROP, "fairgrad:alpha=2", "nash-mtl:max_norm=1e6"])
def test_dropped_tasks_leave_the_others_exactly_alone(spec: str):
    out, alone = make(spec).combine(G), make(spec).combine(G_LIVE)
    np.testing.assert_array_equal(out.weights[LIVE], alone.weights)
    np.testing.assert_array_equal(out.weights[DEAD], 0)
    assert out.record == alone.record
    many = make(spec).solve_many(np.stack([G, np.zeros_like(G)]))
    np.testing.assert_array_equal(many.weights, [out.weights, np.zeros(7)])
    assert many.status.tolist() == [alone.record.status, Status.NO_GRADIENT]


def test_nash_mtl_reaches_its_longest_step_whatever_is_dead():
    w = make("nash-mtl:max_norm=0.5").combine(1e4 * G).weights
    assert np.linalg.norm(w @ (100 * J)) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(("spec", "share"), [("cagrad", 0.8), ("cagrad:c=1", 0.5), ("upgrad", 1), ("dualproj", 1)])
def test_counted_tasks_shrink_the_mean(spec: str, share: float):
    out = make(spec).combine(G)
    np.testing.assert_allclose(out.weights[LIVE], 5 / 7 * make(spec).combine(G_LIVE).weights, rtol=1e-14)
    np.testing.assert_allclose(out.weights[DEAD], share / 7, rtol=1e-15)


@pytest.mark.parametrize("spec", ["upgrad", "dualproj"])
def test_a_counted_task_is_the_limit_of_a_short_gradient(spec: str):
    """Not of CAGrad, which follows the worst-off task, however short its gradient."""
    d = make(spec).combine(G).weights @ J
    # An independent short gradient moves the direction by no more than its length, times a weight of order 1.
    short = np.hstack([J, np.zeros((7, 2))])
    short[DEAD, -2:] = 1e-9 * np.eye(2)
    expected = make(spec).combine(gram_of(short)).weights @ short
    np.testing.assert_allclose(d, expected[:-2], rtol=0, atol=1e-7)


@pytest.mark.parametrize("spec", [*DROP, *COUNT])
def test_no_task_alive_is_a_status(spec: str):
    out = make(spec).combine(np.zeros((4, 4)))
    assert out.record == Record(status=Status.NO_GRADIENT)
    share = {"cagrad": 1 / 1.25, "upgrad": 1, "dualproj": 1}.get(spec, 0)
    np.testing.assert_allclose(out.weights, share / 4, rtol=1e-15)


@pytest.mark.parametrize("spec", ["aligned-mtl", "fairgrad-paper", "pcgrad", "gradvac", "mean", "sum"])
def test_kept_tasks_get_the_methods_own_weight(spec: str):
    combiner = make(spec)
    order = combiner.draw_order(np.random.default_rng(0), 7)
    w = combiner.combine(G, order=order).weights
    expected = {"aligned-mtl": 0, "fairgrad-paper": np.exp(50), "sum": 1}.get(spec, 1 / 7)
    np.testing.assert_allclose(w[DEAD], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["dwa", "uw", "famo"])
def test_methods_of_the_losses_do_not_see_who_is_dead(name: str):
    losses = np.random.default_rng(1).uniform(0.5, 2, 7)
    w, v = (make(name).combine(gram, losses=losses).weights for gram in (G, np.eye(7)))
    np.testing.assert_array_equal(w, v)


@dataclass
class Probe(Combiner):
    """Keeps what it is shown."""

    name: ClassVar[str] = "probe"
    needs_losses: ClassVar[bool] = True

    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def claims(self) -> Claims:
        return Claims()

    def _combine(self, gram, losses, order):
        self.seen.append((gram, losses))
        return Combination(np.ones(len(gram)), Record(iterations=3), {"lives": len(gram)})


def test_a_method_sees_the_gram_and_the_losses_of_live_tasks_alone():
    probe = Probe()
    losses = np.arange(7.0)
    out = probe.combine(G, losses=losses)
    ((gram, seen),) = probe.seen
    np.testing.assert_array_equal(gram, G_LIVE)
    np.testing.assert_array_equal(seen, losses[LIVE])
    np.testing.assert_array_equal(out.weights, [1, 0, 1, 1, 0, 1, 1])
    assert (out.record.iterations, out.reports) == (3, {"lives": 5})


def test_nothing_is_copied_where_all_are_alive():
    probe = Probe()
    losses = np.arange(5.0)
    probe.combine(G_LIVE, losses=losses)
    ((gram, seen),) = probe.seen
    assert gram is G_LIVE
    assert seen is losses


def test_a_gradient_too_short_for_its_digits_is_dead():
    tiny = np.finfo(np.float64).tiny
    for square, alive in ((tiny, True), (tiny * (1 - 2**-52), False), (5e-324, False)):
        probe = Probe()
        probe.combine(np.diag([1.0, square]), losses=np.ones(2))
        assert len(probe.seen[0][0]) == 1 + alive


def test_all_functions_call_the_same_tasks_dead():
    """A gradient whose square is below the normal numbers is dead for the combiners and for every measure."""
    gram = np.diag([4.0, 1e-310, 0.0, 9.0])
    alive = [True, False, False, True]
    assert alive_tasks(geometry.gradient_norms(gram)).tolist() == alive
    assert (geometry.gradient_norms(gram) > 0).tolist() == alive
    assert (geometry.contributions(gram, np.ones(4)) > 0).tolist() == alive
    assert (np.diagonal(geometry.cosines(gram)) > 0).tolist() == alive
    assert geometry.spread(geometry.gradient_norms(gram)) == 1.5
    assert np.isnan(geometry.gradient_norms(np.full((2, 2), np.nan))).all()


def test_a_method_with_a_state_or_an_order_has_to_keep_them():
    with pytest.raises(
        TypeError, match='Forgetful has an order or a state of all tasks: give it `dead_tasks = "keep"`'
    ):

        class Forgetful(Probe):
            state_names = ("mean",)

    class Mindful(Probe):
        dead_tasks = "keep"
        needs_order = True

"""The report of a run in which tasks, weights or finite gradients are missing. What is missing must not count."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toppo_diag
from tests.diag.test_report import EACH, STEPS, K, found, recording
from toppo.combiners import Status, make, names
from toppo.combiners.scalars import STARVED, scalars
from toppo.dump import DumpWriter, ScalarSpec, open_dump
from toppo_diag.analysis.budget import FEWEST_STEPS, MOST_STEPS, Fit, fit
from toppo_diag.analysis.direction import Direction
from toppo_diag.analysis.evenness import from_even, part_of
from toppo_diag.analysis.findings import Check, checks, state_of
from toppo_diag.analysis.health import health_series
from toppo_diag.analysis.overview import overview
from toppo_diag.analysis.recorded import LayerGrams, RunRecord, SideRecord
from toppo_diag.analysis.replay import relative_distance, replay
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.thresholds import thresholds_of
from toppo_diag.analysis.trap import trap
from toppo_diag.analysis.what_if import MOST_GRAMS, most_grams, what_if
from toppo_diag.commands.report import _row
from toppo_diag.reading.recorded import read_record
from toppo_diag.reporting.document import Report
from toppo_diag.reporting.parts import findings

SEEDS = st.integers(0, 2**32 - 1)
COMPARING = ("starved", "top_1", "spread", "conflict", "collapse")
"""Checks that compare tasks with each other."""


def told(run: RunRecord, kinds: tuple[str, ...] = COMPARING) -> dict[tuple[str, str], tuple[object, ...]]:
    """What these checks say of a run."""
    return {
        (c.kind, c.threshold): (c.verdict, pytest.approx(c.number, nan_ok=True), c.since, c.until, c.text)
        for c in checks(run, thresholds_of())
        if c.kind in kinds
    }


def grams(seed: int, k: int, p: int = 400) -> np.ndarray:
    """Grams of independent random gradients."""
    J = np.random.default_rng(seed).standard_normal((STEPS * EACH, k, p))
    return np.asarray(J @ J.mT)


@given(SEEDS, st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_independent_gradients_are_no_trouble_for_any_number_of_tasks(seed: int, k: int) -> None:
    run = recording(grams(seed, k), weights=np.ones((STEPS * EACH, k)))
    assert {c.verdict for c in checks(run, thresholds_of())} == {"fine"}


@pytest.mark.parametrize("k", [2, 3, 10, 12])
@pytest.mark.parametrize(("way", "verdict"), [(0.44, "fine"), (0.46, "trouble")])
def test_the_largest_part_is_judged_from_an_even_one(k: int, way: float, verdict: str) -> None:
    part = part_of(way, k)
    lengths = np.ones(k)
    lengths[1] = part * (k - 1) / (1 - part)  # of the sum, this is `part`
    G = np.tile(np.diag(lengths**2), (STEPS * EACH, 1, 1))
    check = found(recording(G, weights=np.ones((len(G), k))), "top_1")
    assert (check.verdict, check.number) == (verdict, pytest.approx(part))
    assert check.limit == pytest.approx(1 / k + 0.45 * (1 - 1 / k))
    if verdict == "trouble":
        assert check.tasks == (1,) and f"makes {100 * part:.0f}% of the step" in check.text


@pytest.mark.parametrize("k", [2, 3, 10])
def test_parallel_gradients_span_few_directions_for_any_number_of_tasks(k: int) -> None:
    for cosine, verdict in ((0.0, "fine"), (0.97, "trouble")):
        G = np.full((k, k), cosine) + (1 - cosine) * np.eye(k)
        run = recording(np.tile(G, (STEPS * EACH, 1, 1)))
        assert found(run, "collapse", threshold="rank").verdict == verdict


@given(st.floats(0, 1), st.integers(2, 200))
def test_the_way_from_an_even_part_has_an_inverse(way: float, n: int) -> None:
    part = part_of(way, n)
    assert 1 / n <= part <= 1
    assert from_even(np.array([part, 1.0, 1.0]), np.array([n, n, 1])) == pytest.approx([way, 1, np.nan], nan_ok=True)


def joined(first: SideRecord, second: SideRecord) -> SideRecord:
    """The minibatches of two records of one side, in the order of their steps."""
    order = np.argsort(np.concatenate([first.steps, second.steps]), kind="stable")
    both = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])[order]
        for name in ("steps", "gram", "present", "at", "dumped", "there", "weights", "status")
    }
    return replace(first, **both)


@given(SEEDS, st.booleans())
@settings(max_examples=20, deadline=None)
def test_minibatches_with_one_task_change_no_comparison(seed: int, uneven: bool) -> None:
    rng = np.random.default_rng(seed)
    G = grams(seed, K, 8)
    lengths = np.array([1.0, 1.0, 1e3, 1.0]) if uneven else np.ones(K)
    G = G * lengths[:, None] * lengths
    run = recording(G, weights=np.ones((len(G), K)))
    side = run.sides["critic"]
    here = np.zeros((len(G), K), dtype=bool)
    here[np.arange(len(G)), rng.integers(0, K, len(G))] = True
    alone = np.where(here[:, :, None] & here[:, None, :], G, 0.0)
    lone = replace(side, gram=alone, dumped=alone, present=here, there=here)
    for _ in range(2):  # two of three minibatches have one task
        side = joined(side, lone)
    diluted = replace(run, sides={"critic": side})
    assert told(diluted) == told(run)
    assert [c.minibatches for c in checks(diluted, thresholds_of()) if c.kind in COMPARING] == [len(G)] * 6
    totals = [{t.name: t.values for t in overview(of, range(K)).totals} for of in (diluted, run)]
    for name in set(totals[0]) - {"effective rank"}:  # that of one task is 1, and it is no comparison
        assert totals[0][name] == pytest.approx(totals[1][name]), name


def test_one_task_at_a_time_is_nothing_to_compare() -> None:
    here = np.eye(K, dtype=bool)[np.arange(STEPS * EACH) % K]
    G = np.where(here[:, :, None] & here[:, None, :], 1.0, 0.0)
    run = recording(G, present=here, there=here)
    assert {c.verdict for c in checks(run, thresholds_of()) if c.kind in COMPARING} == {"unknown"}
    assert found(run, "dead").verdict == "fine"
    assert all(np.isnan(t.values).all() for t in overview(run, range(K)).totals if t.name != "effective rank")
    health = health_series(G, "mean", here)
    assert np.isnan(health.mean_abs_cosine).all() and np.isnan(health.top_1_mass).all()


def test_a_task_that_is_dead_whenever_it_takes_part_is_dead() -> None:
    here = np.ones((STEPS * EACH, K), dtype=bool)
    here[:, 1] = np.repeat(np.arange(STEPS) % 2 == 0, EACH)
    check = found(recording(np.tile(np.diag([1.0, 0.0, 1.0, 1.0]), (STEPS * EACH, 1, 1)), present=here), "dead")
    assert (check.verdict, check.tasks, check.number) == ("trouble", (1,), 1.0)


def test_dead_tasks_alone_are_no_collapse() -> None:
    run = recording(np.zeros((STEPS * EACH, K, K)), weights=np.ones((STEPS * EACH, K)))
    assert found(run, "dead").verdict == "trouble"
    assert {c.verdict for c in checks(run, thresholds_of()) if c.kind in COMPARING} == {"unknown"}


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_starved_has_one_definition(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    n = STEPS * EACH
    here, weights = rng.random((n, k)) < 0.6, rng.exponential(size=(n, k)) ** 4
    weights[rng.random(n) < 0.2] = np.nan
    both = here[:, :, None] & here[:, None, :]
    G = grams(seed, k, 5)
    step = Direction.of(recording(np.where(both, G, 0.0), there=here, weights=weights).sides["critic"])
    theirs = scalars(np.where(both, G, np.nan), weights)
    whole = np.isfinite(np.where(here, weights, 0)).all(axis=1)
    several = here[whole].sum(axis=1) > 1
    ours = np.where(several, (step.even_shares < STARVED).sum(axis=1), np.nan)
    assert ours == pytest.approx(theirs.whole["starved_tasks"][whole], nan_ok=True)
    assert step.shares == pytest.approx(theirs.by_task["share"][whole], nan_ok=True)
    assert np.isnan(theirs.by_task["share"][~whole]).all()
    top_1 = theirs.whole["top_1_mass"][whole]
    assert step.top_1 == pytest.approx(top_1, nan_ok=True)


def test_an_even_share_is_that_of_the_tasks_that_took_part() -> None:
    k = 10
    here = np.tile(np.arange(k) < 2, (STEPS * EACH, 1))
    G = np.where(here[:, :, None] & here[:, None, :], np.eye(k), 0.0)
    for share, starves in ((0.04, True), (0.06, False)):  # a tenth of an even share is 0.05 of two, and 0.01 of ten
        weights = np.tile(np.sqrt([1 - share, share, *(1,) * 8]), (len(G), 1))
        run = recording(G, weights=weights, present=here, there=here)
        check = found(run, "starved")
        assert (check.tasks == (1,), check.number) == (starves, pytest.approx(2 * share))
        shown = trap(run.sides["critic"].at, G, weights, None, STARVED, here)
        assert (shown.starved[:, 1].all(), shown.threshold) == (starves, pytest.approx(0.05))


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_minibatches_without_weights_are_shares_of_nothing(seed: int) -> None:
    G = grams(seed, K, 8)
    weights = np.ones((len(G), K))
    run = recording(G, weights=weights, status=np.zeros(len(G)))
    partly = np.where(np.arange(len(G))[:, None] % EACH == 0, weights, np.nan)
    side = run.sides["critic"]
    more = replace(side, weights=np.full_like(weights, np.nan), status=np.full(len(G), np.nan))
    diluted = replace(run, sides={"critic": joined(side, more)})
    assert told(diluted, ("starved", "top_1", "solver")) == told(run, ("starved", "top_1", "solver"))
    few = replace(run, sides={"critic": replace(side, weights=partly)})
    assert found(few, "starved").minibatches == STEPS
    lines = {line.name: line.values for line in overview(few, range(K)).lines}
    assert lines["share of the direction"].sum(axis=1) == pytest.approx(np.ones(STEPS))
    shares = trap(side.at, G, partly, None, 0.1).shares
    assert shares == pytest.approx(lines["share of the direction"])
    distance = relative_distance(G, weights, partly)
    assert (np.isnan(distance) == np.isnan(partly[:, 0])).all()


def test_a_status_that_was_not_recorded_does_not_count() -> None:
    status = np.where(np.arange(STEPS * EACH) % EACH == 0, Status.NOT_CONVERGED, np.nan)
    check = found(recording(status=status), "solver")
    assert (check.verdict, check.number, check.minibatches) == ("trouble", 1.0, STEPS)


def record(path: Path, n: int = 12, k: int = 3, bad: tuple[int, ...] = (), weighed: int = 1) -> Path:
    """A run with gradients that are not finite at some steps, and weights at every `weighed`-th step."""
    rng = np.random.default_rng(0)
    beside = {"trunk_weights": ScalarSpec(("task",), "f8", "1", "w"), "trunk_status": ScalarSpec((), "i8", "1", "s")}
    with DumpWriter.create(path, tasks="abcdef"[:k], sides={"trunk": 30}, minibatch_scalars=beside) as dump:
        for step in range(n):
            J = rng.standard_normal((k, 30)).astype(np.float32)
            more = {"trunk_weights": np.ones(k), "trunk_status": 0} if step % weighed == 0 else {}
            dump.record(step=step, trunk=J * np.nan if step in bad else J, **more)
    return path


def test_gradients_that_are_never_finite_are_trouble(tmp_path: Path) -> None:
    page = toppo_diag.report(record(tmp_path / "nan.zarr", bad=tuple(range(12))))
    verdicts = {row["check"]: row["verdict"] for row in page.headline}
    assert verdicts.pop("not_finite") == "trouble" and set(verdicts.values()) == {"unknown"}
    assert "not_finite" in page.lines()[1] and "No gradients are recorded yet" not in page.html
    assert not page.options and any("none of the chosen trunk Grams is finite" in note for note in page.notes)


def test_weights_of_every_third_step_starve_nobody(tmp_path: Path) -> None:
    path = record(tmp_path / "third.zarr", n=18, weighed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = toppo_diag.report(path)
    rows = {row["check"]: row for row in page.headline}
    assert (rows["starved"]["verdict"], rows["starved"]["minibatches"]) == ("fine", 6)
    assert (rows["solver"]["verdict"], rows["spread"]["minibatches"]) == ("fine", 18)
    assert any("recorded in 6 of 18 minibatches" in note for note in page.notes)


@pytest.mark.parametrize(
    ("bad", "verdict", "until"),
    [
        ((0, 1), "note", 1),  # over since long
        ((0, 98), "trouble", None),
        ((0, 30, 60, 90), "trouble", None),  # now and then, as before
        ((99,), "note", None),  # a single one
        ((50,), "note", 50),
        ((97, 98), "trouble", None),
    ],
)
def test_gradients_that_are_finite_again_are_a_note(bad: tuple[int, ...], verdict: str, until: int | None) -> None:
    finite = np.ones((100, K))
    finite[list(bad), 1] = 0
    check = found(recording(finite=finite, finite_at=np.arange(100)), "not_finite")
    assert (check.verdict, check.since, check.until, check.tasks) == (verdict, bad[0], until, (1,))


@given(st.lists(st.sampled_from(("trouble", "note", "fine", "unknown")), max_size=12))
def test_the_page_and_the_terminal_judge_alike(verdicts: list[str]) -> None:
    every = [Check("spread", "critic", verdict, "", "spread", 100.0, 1.0, since=1) for verdict in verdicts]
    run = recording()
    rows = [_row(run, check) for check in every]
    page = findings([run], [every], [range(K)])
    lines = Report(html="", headline=rows, options=[], notes=[], complete=True).lines()
    state = state_of(verdicts)
    assert ("Nothing can be judged yet" in page) == ("nothing can be judged yet" in lines) == (state == "unknown")
    assert ("Healthy." in page) == (state == "healthy")
    assert ("no trouble found" in lines) == (state == "healthy" and "note" not in verdicts)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 1000), st.floats(0, 1)), max_size=12),
    st.integers(10**3, 10**6),
)
def test_the_heatmaps_keep_to_their_budget(layers: list[tuple[int, int, float]], most: int) -> None:
    wanted = [Fit(250, 600, float("inf")), *(Fit(*layer) for layer in layers)]
    found = fit(wanted, most)

    def size(steps: int, kept: tuple[int, ...]) -> float:
        return sum(wanted[n].bytes(steps) for n in kept)

    everything = tuple(range(len(wanted)))
    assert 0 in found.kept and size(found.most_steps, found.kept) <= most
    if found.most_steps < MOST_STEPS:  # no step more would fit
        assert size(found.most_steps + 1, found.kept) > most or found.kept != everything
    if found.kept != everything:
        assert size(FEWEST_STEPS, everything) > most
        left = [wanted[n].rank for n in everything if n not in found.kept]
        assert max(left) <= min(wanted[n].rank for n in found.kept)
    if found.most_steps < FEWEST_STEPS:
        assert found.kept == (0,)


def test_the_page_says_what_its_heatmaps_leave_out() -> None:
    run = recording()
    side = run.sides["critic"]
    opposed = np.eye(K)
    opposed[1, 3] = opposed[3, 1] = -0.5
    values = np.stack([np.eye(K), opposed, np.eye(K)])[None].repeat(len(side.steps), axis=0)
    layers = LayerGrams(("first", "second", "third"), side.steps, values)
    run = replace(run, sides={"critic": replace(side, layers=layers)})
    whole = overview(run, range(K))
    assert [c.layer for c in whole.cubes] == [None, "first", "second", "third"] and not whole.left_out
    of_side, of_layer = (4 / 3 * (4 * (6 + K) + extra) for extra in (4 * 6, 0))
    small = overview(run, range(K), (of_side + of_layer) * STEPS + 1)
    assert [c.layer for c in small.cubes] == [None, "second"]
    assert small.left_out == (
        "So that the page stays small, the heatmaps show 1 of the 3 layers of the critic: "
        "those that bring the most conflict.",
    )
    tiny = overview(run, range(K), of_side * 3 + 1)
    assert [(c.layer, c.steps.tolist()) for c in tiny.cubes] == [(None, [10, 30, 60])]
    assert tiny.left_out[0] == "So that the page stays small, the slider of the heatmaps has 3 of 6 steps."
    assert len(tiny.totals[0].values) == STEPS  # other views show all


@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_what_would_help_combines_the_tasks_that_took_part(seed: int) -> None:
    here = np.tile(np.array([True, True, True, False]), (STEPS * EACH, 1))
    G = np.where(here[:, :, None] & here[:, None, :], grams(seed, K, 5), 0.0)
    G = np.tile(G[:1], (len(G), 1, 1))  # so that it does not matter which minibatches are taken
    side = recording(G, there=here).sides["critic"]
    options, _ = what_if(side)
    block = G[:1, :3, :3]
    assert options
    for option in options:
        if option.combiner in names() and not make(option.combiner).needs_order:
            alone = replay(make(option.combiner), block)
            assert option.worst_cosine.median == pytest.approx(alone.worst_cosine[0], abs=1e-6), option.combiner
            assert option.minibatches == MOST_GRAMS


@given(SEEDS, st.integers(1, 40))
def test_steps_need_no_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    steps, values = rng.integers(0, 6, n) * 10, np.where(rng.random((n, 2)) < 0.3, np.nan, rng.standard_normal((n, 2)))
    at = Steps.of(steps)
    for t, step in enumerate(at.env_steps):
        own = values[steps == step]
        known = np.isfinite(own)
        assert at.count(values)[t].tolist() == known.sum(axis=0).tolist()
        for j in range(2):
            expected = np.mean(own[known[:, j], j]) if known[:, j].any() else np.nan
            assert at.mean(values)[t, j] == pytest.approx(expected, nan_ok=True)
    none = Steps.of(np.empty(0, dtype=int))
    assert none.median(np.empty((0, 3))).shape == none.count(np.empty((0, 3))).shape == (0, 3)


def test_a_side_without_a_finite_gradient_leaves_the_others_their_views(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with DumpWriter.create(tmp_path / "two.zarr", tasks="ab", sides={"good": 20, "bad": 20}) as dump:
        for step in range(6):
            J = rng.standard_normal((2, 20)).astype(np.float32)
            dump.record(step=step, good=J, bad=np.full_like(J, np.inf))
    record = read_record(open_dump(tmp_path / "two.zarr"), "two")
    assert set(record.sides) == {"good", "bad"} and {c.side for c in overview(record, range(2)).cubes} == {"good"}
    verdicts = {(c.side, c.kind): c.verdict for c in checks(record, thresholds_of())}
    assert (verdicts["bad", "not_finite"], verdicts["good", "not_finite"]) == ("trouble", "fine")


def test_a_stream_tells_of_gradients_that_are_not_finite_before_the_first_snapshot(tmp_path: Path) -> None:
    with DumpWriter.create(tmp_path / "live.zarr", tasks="ab", sides={"trunk": 3}, stream=(3, 2)) as dump:
        for collect in range(3):
            dump.record_stream(collect, grams={"trunk": np.full((2, 2, 2), np.nan)}, step=collect + 1)
    verdicts = {row["check"]: row["verdict"] for row in toppo_diag.report(tmp_path / "live.zarr").headline}
    assert verdicts.pop("not_finite") == "trouble" and set(verdicts.values()) == {"unknown"}


def test_many_tasks_are_combined_again_in_fewer_minibatches() -> None:
    assert [most_grams(k) for k in (1, 50, 100, 126, 200, 1000)] == [20, 20, 20, 9, 4, 4]


def test_a_task_that_misses_a_minibatch_keeps_its_numbers(tmp_path: Path) -> None:
    losses = np.array([[[1.0, 2.0], [3.0, np.nan]], [[np.nan, np.nan], [5.0, np.nan]]])
    sizes = {"tasks": "ab", "sides": {"trunk": 3}, "minibatches": 2, "absences": True}
    spec = {"loss": ScalarSpec(("task",))}
    with DumpWriter.create(tmp_path / "d", minibatch_scalars=spec, **sizes) as writer:  # type: ignore[arg-type]
        for step, of_step in enumerate(losses):
            for minibatch, loss in enumerate(of_step):
                there = np.isfinite(loss)
                J = np.where(there[:, None], np.eye(2, 3), np.nan)
                writer.record_minibatch(minibatch, slabs={"trunk": J}, scalars={"loss": loss}, present=there)
            writer.commit_snapshot(step=step)
    (curve,) = read_record(open_dump(tmp_path / "d"), "d").curves
    np.testing.assert_array_equal(curve.values, [[2.0, 2.0], [5.0, np.nan]])


@pytest.mark.parametrize("attrs", [{"gradient_scale": 0.5}, {"combiners": "mean"}, {"combiners": {"trunk": 3}}])
def test_attributes_of_any_kind_are_no_traceback(tmp_path: Path, attrs: dict[str, object]) -> None:
    weights = {"trunk_weights": ScalarSpec(("task",))}
    with DumpWriter.create(
        tmp_path / "d", tasks="ab", sides={"trunk": 3}, minibatch_scalars=weights, attrs=attrs
    ) as writer:
        for step in range(3):
            writer.record(step=step, trunk=np.eye(2, 3), trunk_weights=np.ones(2))
    for ask in (toppo_diag.replay, toppo_diag.trap, toppo_diag.weights, toppo_diag.scalars, toppo_diag.report):
        ask(tmp_path / "d")

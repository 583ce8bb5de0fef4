"""The findings of the report, what would help, and the page as text. What the browser makes of it is tested beside."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toppo_diag
from tests.diag import runs
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from toppo.combiners import Status, make
from toppo.combiners.geometry import cosines
from toppo.dump import DumpWriter, StepAxis, open_dump
from toppo_diag.analysis.findings import Check, checks
from toppo_diag.analysis.overview import Total, overview, seed_totals
from toppo_diag.analysis.recorded import Curve, LayerGrams, RunRecord, SideRecord
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.spells import last_spells, smooth
from toppo_diag.analysis.thresholds import THRESHOLDS, thresholds_of
from toppo_diag.analysis.what_if import what_if
from toppo_diag.errors import UsageError
from toppo_diag.output import json_text
from toppo_diag.reading.recorded import read_record
from toppo_diag.reporting.page import _script
from toppo_diag.reporting.parts import explanations
from toppo_diag.reporting.payload import embedded
from toppo_diag.reporting.text import html, printable, shown
from toppo_diag.reporting.words import EXPLANATIONS

K, STEPS, EACH = 4, 6, 5


def recording(gram: np.ndarray | None = None, **more: Any) -> RunRecord:
    """A run whose Grams are the identity at every step, except for what is given; weights are those of FairGrad."""
    G = np.tile(np.eye(K), (STEPS * EACH, 1, 1)) if gram is None else gram
    k, steps = G.shape[-1], np.repeat(np.arange(1, STEPS + 1) * 10, EACH)
    side = SideRecord(
        steps=steps,
        gram=G,
        dropped=0,
        present=np.ones((len(G), k), dtype=bool),
        at=steps,
        dumped=G,
        there=np.ones((len(G), k), dtype=bool),
        scale=1.0,
        weights=make("fairgrad:alpha=1").solve_many(G).weights,
        spec="fairgrad:alpha=1",
        status=np.zeros(len(G)),
        sigma=None,
        finite=np.ones((len(G), k)),
        finite_at=steps,
    )
    of_run = {name: more.pop(name) for name in ("curves",) if name in more}
    run = RunRecord(
        "run",
        "run",
        tuple("abcdefghijkl"[:k]),
        "steps",
        "step",
        {"critic": replace(side, **more)},
        (),
        {},
        "",
        True,
        (),
    )
    return replace(run, **of_run)


def found(run: RunRecord, kind: str, *thresholds: str, threshold: str | None = None) -> Check:
    """The check of this kind."""
    of_kind = [c for c in checks(run, thresholds_of(thresholds)) if c.kind == kind]
    return next(c for c in of_kind if c.threshold == (threshold or c.threshold))


def from_step(t: int, changed: np.ndarray) -> np.ndarray:
    """Identities, and from the step with index t on another Gram."""
    G = np.tile(np.eye(K), (STEPS * EACH, 1, 1))
    G[t * EACH :] = changed
    return G


def pair(value: float) -> np.ndarray:
    """An identity with one pair (1, 3) of this cosine."""
    G = np.eye(K)
    G[1, 3] = G[3, 1] = value
    return G


def test_a_healthy_run_has_no_finding() -> None:
    every = checks(recording(), thresholds_of())
    assert {c.verdict for c in every} == {"fine"}
    assert all(np.isfinite(c.number) for c in every)


def test_every_check_says_since_when_and_by_how_much() -> None:
    uneven = from_step(2, np.diag([1.0, 1e6, 1.0, 1.0]))
    plain = np.full((len(uneven), K), 0.25)
    spread = found(recording(uneven, weights=plain), "spread")
    assert (spread.verdict, spread.since, spread.until) == ("trouble", 30, None)
    assert spread.number == pytest.approx(1000) and spread.tasks[-1] == 1
    top = found(recording(uneven, weights=plain), "top_1")
    assert (top.since, top.tasks) == (30, (1,)) and top.number == pytest.approx(1000 / 1003)
    opposed = found(recording(from_step(3, pair(-0.6))), "conflict")
    assert (opposed.since, opposed.pair) == (40, (1, 3)) and opposed.number == pytest.approx(-0.6)
    collapsed = from_step(1, np.full((K, K), 0.9) + 0.1 * np.eye(K))
    assert found(recording(collapsed), "collapse", threshold="cosine").number == pytest.approx(0.9)
    assert found(recording(collapsed), "collapse", threshold="rank").since == 20
    dead = found(recording(from_step(2, np.diag([1.0, 0.0, 1.0, 1.0]))), "dead")
    assert (dead.since, dead.tasks, dead.number) == (30, (1,), 1.0)


def test_a_number_has_the_range_of_the_minibatches_it_is_typical_of() -> None:
    longest = np.ones(STEPS * EACH)
    longest[2 * EACH :] = np.random.default_rng(0).uniform(200, 2000, (STEPS - 2) * EACH)
    G = np.tile(np.eye(K), (STEPS * EACH, 1, 1))
    G[:, 1, 1] = longest**2
    check = found(recording(G, weights=np.full((len(G), K), 1 / K)), "spread")
    within = longest[2 * EACH :]  # the stretch
    assert (check.low, check.high) == pytest.approx((within.min(), within.max()))
    assert check.low < check.number < check.high
    fine = found(recording(np.tile(np.diag([1.0, 4.0, 9.0, 1.0]), (STEPS * EACH, 1, 1))), "spread")
    assert (fine.number, fine.low, fine.high) == pytest.approx((3, 3, 3))


def test_a_combiner_that_evens_the_spread_out_makes_it_a_note() -> None:
    uneven = from_step(2, np.diag([1.0, 1e6, 1.0, 1.0]))
    check = found(recording(uneven), "spread")
    assert check.verdict == "note" and "evens this out: contributions differ 1 times" in check.text


@pytest.mark.parametrize(("last", "verdict"), [(0.0, "trouble"), (0.5, "note"), (None, "note")])
def test_a_starved_task_is_trouble_where_it_stands_still(last: float | None, verdict: str) -> None:
    weights = np.tile([1.0, 1e-3, 1.0, 1.0], (STEPS * EACH, 1))
    success = np.zeros((STEPS, K))
    curves = ()
    if last is not None:
        success[:, 1] = np.linspace(0, last, STEPS)
        curves = (Curve("success", "1", np.arange(1, STEPS + 1) * 10, success),)
    check = found(recording(weights=weights, curves=curves), "starved")
    assert (check.verdict, check.tasks) == (verdict, (1,))
    assert check.number == pytest.approx(4e-6 / (3 + 1e-6))


def test_a_loss_stands_in_for_a_missing_success() -> None:
    weights = np.tile([1.0, 1e-3, 1.0, 1.0], (STEPS * EACH, 1))
    for falls, verdict in ((0.02, "trouble"), (0.5, "note")):
        loss = Curve(
            "loss_critic", "1", np.arange(1, STEPS + 1) * 10, np.linspace(1, 1 - falls, STEPS)[:, None].repeat(K, 1)
        )
        assert found(recording(weights=weights, curves=(loss,)), "starved").verdict == verdict


def test_without_weights_the_direction_is_said_to_be_assumed() -> None:
    uneven = from_step(0, np.diag([1.0, 1e6, 1.0, 1.0]))
    assert "plain sum" in found(recording(uneven, weights=None), "top_1").text


def test_recorded_fractions_status_and_losses_are_checked() -> None:
    n = STEPS * EACH
    clipped = np.zeros((n, K))
    clipped[:, 2] = 0.95
    status = np.where(np.arange(n) % 3 == 0, Status.NOT_CONVERGED, Status.OK)
    run = recording(
        per_task={"value_clip_fraction": clipped, "loss_critic": 3 * clipped},
        single={"clip_factor": np.full(n, 0.01)},
        status=status,
        sigma=np.ones((n, K)),
        finite=np.where(np.arange(n)[:, None] * np.ones(K) == 7, 0, 1),
    )
    assert found(run, "clipped").tasks == (2,) and found(run, "clipped").number == pytest.approx(0.95)
    assert found(run, "clip_factor").number == pytest.approx(0.01)
    assert found(run, "solver").verdict == "trouble"
    assert found(run, "popart").number == pytest.approx(2.85)
    # one minibatch that is not finite is said, but it is no trouble
    assert found(run, "not_finite").verdict == "note" and "in 1 of 30 minibatches" in found(run, "not_finite").text


def test_no_finding_rests_on_a_single_minibatch_or_step() -> None:
    G = np.tile(np.eye(K), (STEPS * EACH, 1, 1))
    G[-1] = G[7] = np.diag([1.0, 1e12, 1.0, 1.0])
    assert found(recording(G), "spread").verdict == "fine"
    G[-EACH:] = np.diag([1.0, 1e12, 1.0, 1.0])  # the whole last step
    last = found(recording(G), "spread")
    assert last.verdict == "fine" and "last step alone" in last.text
    few = recording()
    side = few.sides["critic"]
    one = replace(side, steps=side.steps[:3], gram=side.gram[:3], present=side.present[:3], weights=None)
    one = replace(one, at=side.at[:3], dumped=side.dumped[:3], there=side.there[:3], status=None)
    every = checks(replace(few, sides={"critic": one}), thresholds_of())
    assert {c.verdict for c in every if c.kind != "not_finite"} == {"unknown"}


def test_the_layer_in_which_a_pair_opposes_most_is_named() -> None:
    run = recording(from_step(0, pair(-0.5)))
    side = run.sides["critic"]
    values = np.stack([np.stack([pair(0.3), pair(-0.9)])] * len(side.steps))
    layered = replace(side, layers=LayerGrams(("trunk.0", "trunk.2"), side.steps, values))
    check = found(replace(run, sides={"critic": layered}), "conflict")
    assert check.layer == "trunk.2"


def test_every_threshold_can_be_set_and_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "instruments" / "report.md").read_text()
    for name, threshold in THRESHOLDS.items():
        assert thresholds_of([f"{name}={threshold.value}"]) == thresholds_of()
        quantity = threshold.quantity.replace("|", "\\|")  # a bar alone ends a cell
        told = ". ".join(filter(None, (quantity, threshold.scale)))
        assert f"| `{name}` | {threshold.value:g} | {told} | {threshold.source} |" in page, name
    assert found(recording(), "spread", "spread=1").verdict == "fine"
    uneven = from_step(0, np.diag([1.0, 4.0, 1.0, 1.0]))
    assert found(recording(uneven), "spread", "spread=1.5").limit == 1.5
    for wrong in ("spread", "spread=", "spread=many", "spread=nan", "spread=0.5", "spred=3", "=3"):
        with pytest.raises(UsageError) as error:
            thresholds_of([wrong])
        assert "\n" not in str(error.value)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.floats(-5, 5), st.booleans())
def test_a_stretch_is_long_enough_and_beyond_its_threshold(values: list[float], threshold: float, above: bool) -> None:
    steps = np.arange(len(values)) * 7 + 3
    for spell in last_spells(steps, np.array(values)[:, None], threshold, above).values():
        assert spell.steps >= 2
        until = steps[-1] if spell.until is None else spell.until
        within = (steps >= spell.since) & (steps <= until)
        assert within.sum() == spell.steps
        level = smooth(np.array(values))[within]
        assert (level > threshold).all() if above else (level < threshold).all()
        assert spell.until is None or spell.steps >= len(values) / 2


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(float("nan"))), min_size=1, max_size=12))
def test_typical_numbers_are_medians_of_what_is_known(values: list[float]) -> None:
    steps = np.arange(len(values)) // 3
    at = Steps.of(steps)
    for step, number in zip(at.env_steps, at.median(np.array(values)), strict=True):
        known = np.array([v for v, s in zip(values, steps, strict=True) if s == step and not np.isnan(v)])
        assert np.isnan(number) if not len(known) else number == np.median(known)


def test_what_would_help_is_what_replay_says(run: str) -> None:
    dump = open_dump(run)
    record = read_record(dump, "fg").sides["critic"]
    options, notes = what_if(record)
    of_replay = toppo_diag.replay(run, combiners=["mean", "fairgrad:alpha=1", "mgda"], side="critic").numbers
    for row in of_replay.itertuples():
        (option,) = [o for o in options if o.combiner == row.combiner and o.popart]
        ends = (option.worst_cosine.median, option.worst_cosine.low, option.worst_cosine.high)
        assert ends == pytest.approx((row.worst_cosine, row.worst_cosine_low, row.worst_cosine_high), abs=1e-12)
        assert option.spread.median == pytest.approx(row.spread)
    assert [o.combiner for o in options if o.used] == ["fairgrad:alpha=1"]
    assert any("famo" in note for note in notes)
    # FairGrad does not mind PopArt's rescaling (Corollary 1), a mean does.
    by = {(o.combiner, o.popart): o.worst_cosine.median for o in options}
    assert by["fairgrad:alpha=1", True] == pytest.approx(by["fairgrad:alpha=1", False], abs=1e-6)
    assert abs(by["mean", True] - by["mean", False]) > 1e-3


def test_the_views_show_medians_of_cosines_and_the_norms_of_the_figure(run: str) -> None:
    dump = open_dump(run)
    view = overview(read_record(dump, "fg"), range(4))
    cube = next(c for c in view.cubes if c.side == "critic" and c.layer is None)
    G = dump.gram_stream("critic").values
    assert cube.cosines[2, 0] == pytest.approx(np.median(cosines(G[2])[:, 0, 1]))
    expected = (
        toppo_diag.norms(run, side="critic").tables["main"].pivot(index="env_steps", columns="task", values="norm")
    )
    assert cube.norms == pytest.approx(expected[list(dump.tasks)].to_numpy())
    layers = [c for c in view.cubes if c.side == "critic" and c.layer]
    assert [c.layer for c in layers] == [part.name for part in dump.parameters("critic")]


def test_seeds_are_averaged_at_the_steps_that_all_have() -> None:
    a = Total("critic", "rank", np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))
    b = Total("critic", "rank", np.array([2, 3, 4]), np.array([4.0, 5.0, 6.0]))
    (made,) = seed_totals([[a], [b]])
    assert made.steps.tolist() == [2, 3] and made.mean.tolist() == [3.0, 4.0]
    assert made.sem == pytest.approx([1.0, 1.0])


@given(st.text())
def test_text_cannot_leave_its_place(text: str) -> None:
    assert printable(text).isprintable()
    assert not set("<>\"'") & set(html(text))
    inside = embedded({"name": text})
    assert not set("<>&") & set(inside)
    assert json.loads(inside)["name"] == text


def test_numbers_are_shown_in_few_digits() -> None:
    assert [shown(v) for v in (0.0, 0.1234, 12345.6, 1e-7, 2e7, float("nan"))] == [
        *("0", "0.123", "12,346", "1.00e-07", "2.00e+07", "unknown")
    ]


def test_the_page_is_one_file_with_a_policy_for_its_own_scripts(run: str) -> None:
    text = toppo_diag.report(run).html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy[1]
    assert not re.findall(r'<(?:script|img|link|iframe)[^>]*\b(?:src|href)="', text)
    assert toppo_diag.report(run).html == text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    packed = data["runs"][0]["cubes"][0]
    values = np.frombuffer(base64.b64decode(packed["cosines"]), dtype="<f4")
    assert values.size == len(packed["steps"]) * packed["pairs"]


def test_every_finding_is_explained() -> None:
    kinds = {c.kind for c in checks(recording(), thresholds_of())} | {"clipped", "clip_factor", "popart"}
    assert kinds == set(EXPLANATIONS)
    text = explanations(kinds)
    assert "PopArt" not in explanations({"dead"})
    assert all(f'id="explain-{kind}"' in text for kind in kinds)


def test_a_run_with_little_shows_what_there_is_and_says_what_is_missing(bare_run: str, tmp_path: Path) -> None:
    bare = toppo_diag.report(bare_run)
    assert "Nothing can be judged yet" in bare.html and any("No success was recorded" in note for note in bare.notes)
    assert any("weights were not recorded" in note for note in bare.notes)
    with DumpWriter.create(tmp_path / "none.zarr", tasks=["a", "b"], sides={"trunk": 3}) as dump:
        empty = toppo_diag.report(dump.path)
    assert "No gradients are recorded yet" in empty.html and not empty.headline
    with DumpWriter.create(tmp_path / "one.zarr", tasks=["a"], sides={"trunk": 3}) as dump:
        for step in range(5):
            dump.record(step=step, trunk=np.ones((1, 3), dtype=np.float32))
    alone = toppo_diag.report(tmp_path / "one.zarr")
    assert {"fine", "unknown"} == {row["verdict"] for row in alone.headline}
    archive = toppo_diag.export(bare_run, tmp_path / "grams.h5")
    assert not any("has no layers" in note for note in toppo_diag.report(archive).notes)
    grams = runs.record(tmp_path / "grams", slabs=False)
    assert any("has no layers" in note for note in toppo_diag.report(grams).notes)


def test_runs_with_different_tasks_are_compared_on_what_they_share(run: str, tmp_path: Path) -> None:
    other = runs.record(tmp_path / "other", tasks=("push-v3", "door-open-v3", "sweep-v3"))
    both = toppo_diag.report([run, other])
    assert "The views show the 2 that all share" in both.notes[0]
    strange = runs.record(tmp_path / "strange", tasks=("x", "y"))
    with pytest.raises(UsageError, match="share no task"):
        toppo_diag.report([run, strange])
    with pytest.raises(UsageError, match="is given twice"):
        toppo_diag.report([run, run])


def test_the_command_writes_the_page_and_prints_the_findings(diag: Any, ln_run: str) -> None:  # noqa: F811
    code, out, err = diag("report", ln_run, "--out", "pages/report.html", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    page = toppo_diag.report(ln_run)
    told = json.loads(json_text([page.headline, page.options]))
    assert [answer["numbers"], answer["what_if"]] == told
    assert Path(answer["files"][0]).read_text() == page.html
    code, out, err = diag("report", ln_run)
    assert code == 0 and out.splitlines()[-1] == "report.html"
    code, out, err = diag("report", ln_run, "--out", "pages")
    assert code == 0 and out.splitlines()[-1] == str(Path("pages/report.html"))
    code, out, err = diag("report", ln_run, "--threshold", "spread=1", "--threshold", "top_1=0.9")
    assert code == 0 and "spread" in out
    code, out, err = diag("report", ln_run, "--threshold", "spread=none")
    assert code == 2 and "--threshold" in err and "spread is a number" in err
    code, out, err = diag("report", "nowhere")
    assert code in (1, 2) and "nowhere" in err and err.count("\n") == 1


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(run: str) -> None:
    page = toppo_diag.report(run)
    frame = page._repr_html_()
    assert frame.startswith('<iframe title="report" sandbox="allow-scripts')
    assert frame.count('"') == 8  # nothing of the page leaves the attribute
    assert "fairgrad" not in repr(page) and page.numbers["check"].notna().all()
    assert set(page.tables) == {"main", "what-if"}


def test_an_absent_task_is_neither_dead_nor_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    axis = StepAxis("step", "optimiser steps")
    path = tmp_path / "absent.zarr"
    # `toppo.record` says how it captured; without weights, training then was the sum of the losses.
    options = {"absences": True, "step": axis, "attrs": {"capture": {"way": "walks"}}}
    with DumpWriter.create(path, tasks=["a", "b", "c"], sides={"trunk": 8}, **options) as dump:
        for step in range(8):
            J = rng.standard_normal((3, 8)).astype(np.float32)
            dump.record(step=step, trunk=J, present=[True, step % 4 == 0, True], accuracy=np.full(3, 0.5))
    page = toppo_diag.report(path)
    assert not any("weights" in note or "success" in note for note in page.notes)
    assert [row["combiner"] for row in page.options if row["used"]] == ["sum"]
    assert {row["check"]: row["verdict"] for row in page.headline}["dead"] == "fine"
    record = read_record(open_dump(path), "absent")
    assert (record.step_name, record.step_label) == ("step", "optimiser steps")
    view = overview(record, range(3))
    cube, lines = view.cubes[0], next(line for line in view.lines if line.view == "norms")
    assert np.isnan(cube.cosines[1, 0]) and np.isfinite(cube.cosines[1, 1])  # b is absent at step 1
    assert np.isnan(lines.values[1, 1]) and lines.values[4, 1] > 0


def test_every_module_of_the_script_is_in_the_page() -> None:
    modules = list((resources.files("toppo_diag.reporting") / "script").iterdir())
    script = _script("page.js")
    assert len(modules) > 5
    for module in modules:
        first_words = module.read_text(encoding="utf-8").splitlines()[0]
        assert script.count(first_words) == 1
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)

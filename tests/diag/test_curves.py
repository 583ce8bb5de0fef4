"""`toppo-diag curves`: the numbers behind every figure, what is drawn, and what it says to bad input."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.diag.evaluated import MT10, evaluate, flat
from tests.test_cli import run as run_cli
from toppo_diag import cli
from toppo_diag.analysis import curves
from toppo_diag.analysis.published import PublishedRow
from toppo_diag.analysis.runs import RUNGS, align_each
from toppo_diag.plots.curves import Panel, ladder_figure, per_task_figure, rung_styles, success_figure, worst_k_figure
from toppo_diag.plots.style import paper_style
from toppo_diag.reading.published import read_published
from toppo_diag.reading.runs import read_runs

PUBLISHED = Path(__file__).parents[2] / "figures" / "published"
PAPER = read_published(PUBLISHED)


@pytest.fixture
def diag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object):
        options = ("curves", *map(str, arguments), "--published", str(PUBLISHED), "--format", "svg", "--out", "out")
        return run_cli(cli, options, monkeypatch, capsys)

    return run


def table(name: str) -> list[dict[str, str]]:
    with Path("out", name).open() as file:
        return list(csv.DictReader(file))


# --- numbers


def test_bands_are_the_named_statistics_in_percent():
    """By hand, of 10, 20, 40 and 90 percent: mean 40, sample variance 3800 / 3, middle half 20 and 40."""
    success = np.array([[0.1, 0.2, 0.4, 0.9]])
    std = np.sqrt(3800 / 3)
    for kind, spread in (("std", std), ("sem", std / 2)):
        found = curves.band(success, kind)
        np.testing.assert_allclose([found.centre, found.low, found.high], [[40], [40 - spread], [40 + spread]])
    found = curves.band(success, "iqm")
    assert found.centre == pytest.approx(30)
    assert 10 <= found.low[0] < 30 < found.high[0] <= 90


@pytest.mark.parametrize("kind", curves.BANDS)
def test_one_seed_has_no_band(kind: str):
    found = curves.band(np.array([[0.3], [0.5]]), kind)
    np.testing.assert_allclose(found.centre, [30, 50])
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


def test_worst_k_takes_each_seeds_own_worst_tasks(tmp_path: Path):
    """Two seeds whose worst five are different tasks; averaging over seeds first would give 50."""
    half = np.array([[1.0] * 5 + [0.0] * 5])
    paths = [evaluate(tmp_path / str(n), np.repeat(s, 2, axis=0), seed=n) for n, s in enumerate((half, half[:, ::-1]))]
    (group,) = align_each(read_runs([str(p) for p in paths]))
    found = curves.worst_bands(group, "std")
    assert {k: float(b.centre) for k, b in found.items()} == {5: 0.0, 10: 50.0}


def test_ks_are_table_2s_that_a_benchmark_has():
    assert curves.worst_ks(50) == (5, 10, 20, 30, 40, 50)
    assert curves.worst_ks(10) == (5, 10)
    assert curves.worst_ks(25) == (5, 10, 20, 25)
    assert curves.worst_ks(2) == (2,)


def test_baselines_are_others_numbers_over_all_tasks():
    """Spot values of Tables 2 and 3; never the paper's own rows."""
    levels = {
        setting: {m: row.value for m, row in curves.baselines(PAPER, *setting).items()}
        for setting in (("MT10", "v2", 10), ("MT50", "v2", 50), ("MT50", "v1", 50), ("MT25", "v2", 25))
    }
    assert len(levels["MT10", "v2", 10]) == 10  # Table 2 has eleven, ARS-LN (1024) is not published
    assert levels["MT10", "v2", 10]["ARS-LoRA"] == 99.5
    assert len(levels["MT50", "v2", 50]) == 11
    assert list(levels["MT50", "v2", 50].items())[:2] == [("ARS-LN (1024)", 88.9), ("ARS-LoRA", 83.2)]
    assert next(iter(levels["MT50", "v1", 50].items())) == ("MOORE", 61.8)
    assert len(levels["MT50", "v1", 50]) == 5
    assert levels["MT25", "v2", 25] == {}
    assert not {*RUNGS} & {*levels["MT50", "v2", 50]}


def test_the_strongest_baseline_at_each_k():
    best = curves.best_worst_k(PAPER, "MT50", "v2", 50)
    assert {k: (row.method, row.value) for k, row in best.items() if k != 5} == {
        10: ("ARS-LoRA", 29.3),
        20: ("ARS-LoRA", 58.4),
        30: ("ARS-LoRA", 72.0),
        40: ("ARS-LoRA", 79.0),
        50: ("ARS-LN (1024)", 88.9),
    }
    assert best[5].value == 0
    assert [row.value for row in curves.best_worst_k(PAPER, "MT10", "v2", 10).values()] == [99.5]
    assert curves.best_worst_k(PAPER, "MT50", "v1", 50) == {}  # IQMs are no means


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 8))
def test_labels_are_spread_in_order_apart_and_within_bounds(heights: list[float], gap: float):
    points = np.array(heights)
    placed = curves.spread_out(points, gap, 0, 100)
    order = np.argsort(points, kind="stable")
    assert (np.diff(placed[order]) >= gap * (1 - 1e-9) - 1e-9).all()
    assert (placed >= -1e-9).all()
    if (len(heights) - 1) * gap <= 100:
        assert (placed <= 100 + 1e-9).all()
    if all(abs(a - b) >= gap for a, b in itertools.combinations(heights, 2)):
        np.testing.assert_allclose(placed, points, atol=1e-9)  # nothing to move


def test_an_iqm_has_the_deviation_of_all_seeds_around_it():
    """Figure D.7: the IQM over seeds with the sample standard deviation, which trims nothing."""
    success = np.array([0.0, 0.2, 0.3, 0.4, 1.0])
    found = curves.band(success, "iqm-std")
    assert float(found.centre) == pytest.approx(30)
    deviation = 100 * np.std([0.0, 0.2, 0.3, 0.4, 1.0], ddof=1)
    assert (float(found.low), float(found.high)) == pytest.approx((30 - deviation, 30 + deviation))


def test_a_curve_reaches_a_level_first_and_for_good(tmp_path):
    run = evaluate(tmp_path / "a", flat(0.0, 0.9, 0.8, 0.95))
    (group,) = align_each(read_runs([str(run)]))
    levels = curves.baselines(PAPER, "MT10", "v2", 10)
    reached = curves.reached(group, "std", levels)
    assert reached["MOORE"] == (400_000, 1_200_000)  # 86.0
    assert reached["PaCo"] == (400_000, 1_200_000)  # 82.4
    assert reached["SAC-MT"] == (400_000, 400_000)  # 69.4
    assert reached["ARS"] == (None, None)  # 97.3


def test_the_ars_family_has_bars_where_its_numbers_are_published():
    family = curves.ars_family(PAPER, "MT50", "v2", 50)
    assert {name: sorted(bars) for name, bars in family.items()} == {
        "ARS": [10, 20, 30, 40, 50],
        "ARS-LN (400)": [10, 20, 30, 40, 50],
        "ARS-LN (1024)": [50],
        "ARS-LoRA": [10, 20, 30, 40, 50],
    }
    bar = family["ARS-LoRA"][10]
    assert (float(bar.centre), float(bar.low), float(bar.high)) == pytest.approx((29.3, 21.6, 37.0))
    assert curves.ars_family(PAPER, "MT50", "v1", 50) == {}


def test_two_labels_at_one_point_part_evenly():
    np.testing.assert_allclose(curves.spread_out(np.array([50.0, 50.0, 90.0]), 4, 0, 100), [48, 52, 90])


# --- the command


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two rungs with three seeds each: at 0, 400k and 800k steps."""
    rng = np.random.default_rng(0)
    rungs = {"vanilla": (0.0, 0.2, 0.3), "toppo": (0.0, 0.9, 1.0)}
    return [
        evaluate(tmp_path / f"{p}-{s}", np.clip(flat(*m) + 0.05 * rng.random((3, 10)), 0, 1), preset=p, seed=s)
        for p, m in rungs.items()
        for s in range(3)
    ]


def test_success_writes_every_statistic_and_where_baselines_are_reached(diag, runs):
    code, out, err = diag(*runs, "--name", "curves-success-MT10-v2", "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["files"] == [f"out/curves-success-MT10-v2{s}" for s in (".svg", ".csv", "-baselines.csv")]
    rows = [r for r in table("curves-success-MT10-v2.csv") if r["label"] == "TOPPO"]
    given_ = np.array([run.success.mean(axis=1) for run in read_runs([str(p) for p in runs[3:]])])
    assert [int(r["env_steps"]) for r in rows] == [0, 400_000, 800_000]
    np.testing.assert_allclose([float(r["mean"]) for r in rows], 100 * given_.mean(axis=0))
    np.testing.assert_allclose([float(r["std"]) for r in rows], 100 * given_.std(axis=0, ddof=1))
    np.testing.assert_allclose([float(r["sem"]) for r in rows], 100 * given_.std(axis=0, ddof=1) / np.sqrt(3))
    levels = table("curves-success-MT10-v2-baselines.csv")
    reached = {(r["label"], r["baseline"]): r["reached_for_good_at"] for r in levels}
    assert all(r["first_reached_at"] == r["reached_for_good_at"] for r in levels)  # these curves never fall
    assert {r["baseline"] for r in levels if r["more_parameters"] == "False"} == {"PaCo", "SMT"}  # not published
    assert reached["TOPPO", "MOORE"] == "400000"  # 86.0, between the 90 and what vanilla has
    assert reached["TOPPO", "ARS-LoRA"] == "800000"
    assert reached["Vanilla MT-PPO", "MOORE"] == ""
    assert [n["baselines_reached"] for n in made["numbers"]] == ["0 of 10", "10 of 10"]


def test_each_figure_of_the_same_runs(diag, runs):
    toppo = np.array([run.success[-1] for run in read_runs([str(p) for p in runs[3:]])])
    for figure, count in (("per-task", 10 * 2 * 3), ("worst-k", 2 * 2 + 3), ("ladder", 2)):
        code, _, err = diag(*runs, "--figure", figure, "--name", f"curves-{figure}-MT10-v2")
        assert (code, err) == (0, "")
        assert len(table(f"curves-{figure}-MT10-v2.csv")) == count
    per_task = {
        r["task"]: float(r["mean"])
        for r in table("curves-per-task-MT10-v2.csv")
        if (r["label"], r["env_steps"]) == ("TOPPO", "800000")
    }
    assert list(per_task.values()) == sorted(per_task.values())  # worst first
    np.testing.assert_allclose([per_task[t] for t in MT10], 100 * toppo.mean(axis=0))
    worst = {r["k"]: r for r in table("curves-worst-k-MT10-v2.csv") if r["label"] == "TOPPO"}
    assert float(worst["5"]["mean"]) == pytest.approx(100 * np.sort(toppo, axis=1)[:, :5].mean())
    family = {r["label"]: float(r["mean"]) for r in table("curves-worst-k-MT10-v2.csv") if r["whose"] == "published"}
    assert family == {"ARS": 97.3, "ARS-LN (400)": 98.6, "ARS-LoRA": 99.5}
    assert (worst["10"]["best_published"], worst["5"]["best_published"]) == ("ARS-LoRA", "")


def test_benchmarks_are_panels_of_success_and_refused_elsewhere(diag, runs, tmp_path):
    other = evaluate(tmp_path / "other", np.full((3, 2), 0.5), tasks=MT10[:2], benchmark=",".join(MT10[:2]))
    code, out, _ = diag(*runs, other)
    assert code == 0
    assert "out/curves-success-MT10-v2-2-tasks-v2-vanilla-0+6more-" in out
    assert "note: 2-tasks v2: no published baselines" in out
    for figure in ("per-task", "worst-k", "ladder"):
        code, _, err = diag(*runs, other, "--figure", figure)
        assert (code, err.count("\n")) == (2, 1)
        assert "give runs of one benchmark and reward at a time" in err


def test_unequal_lengths_and_missing_seeds_are_said(diag, runs, tmp_path):
    short = evaluate(tmp_path / "short", flat(0.0, 0.5), preset="toppo", seed=7, planned=2)
    code, out, _ = diag(*runs[:2], *runs[3:], short)
    assert code == 0
    assert "short (TOPPO, seed 7) is incomplete: evaluated up to 400,000 of its 800,000 steps" in out
    assert "toppo-0 (TOPPO, seed 0) is cut" in out
    assert "Vanilla MT-PPO on MT10 v2: 2 seeds (0, 1)" in out
    assert "TOPPO on MT10 v2: 4 seeds (0, 1, 2, 7)" in out
    assert "our runs have different budgets" in out


def test_one_seed_is_said_and_has_no_spread(diag, runs):
    code, out, _ = diag(runs[0], "--name", "curves-success-MT10-v2", "--json")
    assert code == 0
    answer = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert answer["numbers"][0]["low"] is None
    assert any("1 seed (0), so no std" in note for note in answer["notes"])
    assert table("curves-success-MT10-v2.csv")[0]["std"] == ""


def test_means_beside_published_iqms_are_said(diag, tmp_path):
    pytest.importorskip("metaworld")
    from toppo.training.envs.metaworld import task_names

    tasks = task_names("MT50")
    paths = [
        evaluate(tmp_path / str(s), np.full((2, 50), 0.5), tasks=tasks, benchmark="MT50", reward="v1", seed=s)
        for s in range(2)
    ]
    code, out, _ = diag(*paths)
    assert code == 0
    assert "MT50 v1: the published baselines are IQMs, the curves means; --band iqm compares like with like" in out
    assert "are IQMs" not in diag(*paths, "--band", "iqm")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "--figure", "sucess"), "--figure sucess: give success, per-task, worst-k or ladder"),
        (("RUN", "--band", "ci"), "--band ci: give std, sem, iqm or iqm-std"),
        (("RUN", "RUN"), "are both seed 0 of Vanilla MT-PPO"),
        (("nowhere",), "nowhere"),
    ],
)
def test_bad_input_is_one_line(diag, runs, arguments, message):
    code, out, err = diag(*(str(runs[0]) if a == "RUN" else a for a in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_run_without_evaluations_is_one_line(diag, runs):
    (runs[0] / "evaluation.jsonl").unlink()
    code, _, err = diag(runs[0])
    assert (code, err.count("\n")) == (1, 1)
    assert "has no evaluations yet" in err


# --- what is drawn


def a_band(*centre: float) -> curves.Band:
    return curves.Band(np.array(centre), np.array(centre) - 5, np.array(centre) + 5)


def test_curves_and_bands_are_the_numbers_and_names_do_not_touch():
    levels = {m: curves.level(row) for m, row in curves.baselines(PAPER, "MT50", "v2", 50).items()}
    lines = {label: (np.array([0, 10, 20]), a_band(10, 20, 30 + n)) for n, label in enumerate(RUNGS)}
    with paper_style():
        figure = success_figure([Panel("MT50", lines, levels)], "std")
        figure.draw_without_rendering()
        (ax,) = figure.axes
        drawn = {line.get_gid(): line.get_ydata() for line in ax.lines if line.get_gid()}
        for n, label in enumerate(RUNGS):
            np.testing.assert_array_equal(drawn[f"curve {label}"], [10, 20, 30 + n])
        for method, value in levels.items():
            np.testing.assert_array_equal(drawn[f"baseline {method}"], [value])
        assert sum(str(c.get_gid()).startswith("band ") for c in ax.collections) == len(RUNGS)
        names = [t.get_window_extent() for t in ax.texts if str(t.get_gid()).startswith("name ")]
        assert len(names) == len(levels)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(names, 2))
        assert all(box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in names)


def test_one_seed_has_no_band_drawn():
    nothing = np.full(2, np.nan)
    lines = {"TOPPO": (np.array([0, 10]), curves.Band(np.array([0, 50]), nothing, nothing))}
    (ax,) = success_figure([Panel("MT10", lines, {})], "std").axes
    assert not ax.collections
    assert ax.get_ylabel() == "success rate (%), one seed"


@pytest.mark.parametrize("n_tasks", [1, 2, 10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_panel_a_task_and_no_text_over_another(n_tasks: int):
    tasks = [f"{MT10[i % 10].removesuffix('-v3')}-{i}" for i in range(n_tasks)]
    lines = {label: (np.array([0, 10_000_000]), a_band(10, 20)) for label in RUNGS}
    with paper_style():
        figure = per_task_figure(dict.fromkeys(tasks, lines), "MT", "std")
        figure.draw_without_rendering()
        assert [ax.get_title() for ax in figure.axes] == tasks
        legend = figure.legends[0].get_window_extent()
        texts = [t.get_window_extent() for ax in figure.axes for t in (ax.title, ax.xaxis.label) if t.get_text()]
        assert not any(box.overlaps(legend) for box in texts)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(texts, 2))


def test_bars_are_the_numbers():
    bars = {label: {5: a_band(10.0 * n), 10: a_band(20.0)} for n, label in enumerate(RUNGS)}
    single = {
        label: {k: curves.Band(*(v[0] for v in vars(b).values())) for k, b in row.items()}
        for label, row in bars.items()
    }
    with paper_style():
        other = {"X*": {10: single[RUNGS[0]][10]}}
        (ax,) = worst_k_figure(single, {10: ("ARS", 65.0)}, "MT10", "std", published=other).axes
        heights = {p.get_gid(): p.get_height() for p in ax.patches}
        assert (heights["bar X* 10"], "bar X* 5" in heights, "* more parameters" in ax.get_title()) == (20, False, True)
        panels = ladder_figure({"final mean": {label: row[5] for label, row in single.items()}}, {}, "MT10", "std").axes
    assert [heights[f"bar {label} 5"] for label in RUNGS] == [0, 10, 20, 30, 40, 50]
    assert [p.get_width() for p in panels[0].patches] == [0, 10, 20, 30, 40, 50]


def test_rungs_keep_their_looks_whatever_others_there_are():
    alone, among = rung_styles(["TOPPO"]), rung_styles(["PopArt", "Vanilla MT-PPO", "TOPPO", "FG-c"])
    assert alone["TOPPO"] == among["TOPPO"]
    assert len({(str(s["color"]), str(s["linestyle"])) for s in among.values()}) == 4


def test_a_level_is_there_or_an_error():
    row = PublishedRow("2", "ARS", "MT10", "v2", "final", None, "", None, None, 8, "%", "Cho", "", {})
    with pytest.raises(AssertionError):
        curves.level(row)

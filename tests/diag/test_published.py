"""The paper's numbers: counted, spot-checked against values read off its tables, and against each other."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from toppo_diag.analysis.published import PAPER, Published, PublishedRow
from toppo_diag.analysis.runs import RUNGS
from toppo_diag.analysis.solver_bench import PAPER_SOLVER, REGIMES
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.reading.published import read_published

WHERE = Path(__file__).parents[2] / "figures" / "published"


@pytest.fixture(scope="module")
def published() -> Published:
    return read_published(WHERE)


def test_rows_of_every_table(published: Published):
    """Lines times numbers a line, counted in the paper."""
    assert Counter(row.source_table for row in published.rows) == {
        "2": 16 * 9,  # 11 baselines and 5 rungs: MT10 parameters and success, MT50 parameters and six worst-k
        "3": 6 * 2 + 5 * 4,  # six rungs: parameters and IQM; five baselines: those, the step to match and its share
        "B.2": 16 * 2,
        "C.1": 5 * (4 + 4 + 1),
        "D.1": 4 * 2 + 4,  # and the four differences printed under it
        "D.2": 6 * 3,
        "D.3": 11 * 3 + 4,  # likewise
        "D.4": 6 * 6,
        "D.5": 10 * 6,
        "D.6": 50 * 6,
        "D.7": 50 * 6,
        "D.10": 6 * 8,
        "D.11": 12 * 6,
    }
    assert {name: len(rows) for name, rows in published.texts.items()} == {"D.8": 11, "D.9": 12}
    assert [row.source_table for row in published.rows] == sorted(
        (row.source_table for row in published.rows),
        key=list(dict.fromkeys(r.source_table for r in published.rows)).index,
    )


VALUES = [
    ("2", "SAC-MT", "MT10", "final", None, "", 69.4, 0.8, 8),
    ("2", "PaCo", "MT10", "parameters", None, "", None, None, None),
    ("2", "PaCo", "MT50", "worst_k", 30, "", 26.1, 15.0, 8),
    ("2", "ARS", "MT50", "worst_k", 5, "", None, None, 8),
    ("2", "ARS-LN (1024)", "MT50", "parameters", None, "", 16267, None, None),
    ("2", "ARS-LN (1024)", "MT50", "worst_k", 50, "", 88.9, 2.6, 8),
    ("2", "ARS-LoRA", "MT50", "worst_k", 10, "", 29.3, 7.7, 8),
    ("2", "TOPPO", "MT50", "worst_k", 10, "", 56.5, 7.8, 10),
    ("2", "TOPPO", "MT50", "worst_k", 50, "", 90.9, 1.6, 10),
    ("2", "Vanilla MT-PPO", "MT10", "final", None, "", 85.2, 6.5, 10),
    ("3", "PaCo", "MT50", "iqm", None, "", 18.6, 15.4, 10),
    ("3", "MOORE", "MT50", "step_to_match", None, "", 13, None, None),
    ("3", "MT-MH-SAC", "MT50", "step_to_match_share", None, "", 3, None, None),
    ("3", "TOPPO", "MT50", "iqm", None, "", 79.3, 1.3, 10),
    ("B.2", "PaCo (K=5 / K=20)", "MT50", "parameters", None, "", 33909, None, None),
    ("B.2", "Vanilla MT-PPO", "MT10", "parameters", None, "", 684, None, None),
    ("D.1", "+ LN-c + FG-c", "MT50", "worst_k", 10, "", 52.6, 7.6, 10),
    ("D.1", "PopArt with FG-c", "MT50", "worst_k_difference", 10, "", -0.22, None, None),
    ("D.2", "TOPPO", "MT50", "best", None, "", 92.1, 1.7, 10),
    ("D.2", "LN-c + PopArt (a: cagrad c=0.5, c: cagrad c=0.5)", "MT50", "iqm", None, "", 89.2, None, 10),
    ("D.5", "Vanilla MT-PPO", "MT10", "final", None, "drawer-open-v3", 20.0, 42.2, 10),
    ("D.5", "+ LN-c + PopArt + FG-c", "MT10", "final", None, "peg-insert-side-v3", 85.8, 25.6, 10),
    ("D.6", "TOPPO", "MT50", "final", None, "disassemble-v3", 19.6, 40.8, 10),
    ("D.6", "+ LN-c + FG-c", "MT50", "final", None, "button-press-topdown-wall-v3", 82.0, 16.1, 10),
    ("D.6", "Vanilla MT-PPO", "MT50", "final", None, "stick-push-v3", 60.0, 51.2, 10),
    ("D.7", "+ LN-c + PopArt", "MT50", "final", None, "pick-out-of-hole-v3", 72.4, 40.1, 10),
    ("D.7", "TOPPO", "MT50", "final", None, "basketball-v3", 29.6, 34.2, 10),
    ("D.10", "+ LN-c + PopArt", "MT10", "best", None, "", 99.9, 0.2, 10),
    ("D.10", "+ LN-c + FG-c", "MT50", "late", None, "", 89.6, 1.5, 10),
    ("D.11", "TOPPO", "MT50", "best_step_q25", None, "", 51.0, None, 10),
    ("D.11", "+ LN-c", "MT10", "best_step_max", None, "", 20.0, None, 10),
]
"""Read off the paper by eye: table, method, benchmark, metric, k, task, value, std, n."""


@pytest.mark.parametrize("expected", VALUES, ids=lambda v: " ".join(map(str, v[:6])))
def test_values(published: Published, expected: tuple[object, ...]):
    table, method, benchmark, metric, k, task, *numbers = expected
    found = [
        row
        for row in published.of(str(table))
        if (row.method, row.benchmark, row.metric, row.k, row.task) == (method, benchmark, metric, k, task)
    ]
    assert [[row.value, row.std, row.n] for row in found] == [numbers]


def test_both_rewards_of_table_d3(published: Published):
    found = {(r.method, r.reward, r.metric): r.value for r in published.of("D.3")}
    assert found["+ LN-c + FG-c", "v1", "iqm"] == 62.0
    assert found["PCGrad-SAC", "v2", "iqm"] == 69.5
    assert found["PaCo", "v1-v2", "iqm_gap"] == 40.30
    assert found["PopArt with FG-c", "v1", "iqm_difference"] == 17.01
    assert {r.reward for r in published.of("D.4") + published.of("D.7") + published.of("3")} == {"v1"}
    assert {r.reward for n in ("2", "D.1", "D.2", "D.5", "D.6", "D.10") for r in published.of(n)} == {"v2"}


def test_rows_of_text(published: Published):
    soft = next(row for row in published.texts["D.8"] if row["paper"] == "Soft Modularization (2020)")
    assert (soft["total_mt10"], soft["total_mt50"]) == ("15", "50")
    ars = published.texts["D.9"][-1]
    assert [ars[c] for c in ("paper", "seeds", "aggregator", "dispersion", "eval_episodes", "reward")] == [
        *("ARS (2025)", "8", "(A)", "std", "10", "v2")
    ]


def _values(rows: tuple[PublishedRow, ...], **where: object) -> dict[str, float]:
    return {
        row.method: row.value
        for row in rows
        if row.value is not None and all(getattr(row, name) == value for name, value in where.items())
    }


@pytest.mark.parametrize(
    ("per_task", "whole", "where"),
    [
        ("D.5", "2", {"benchmark": "MT10", "metric": "final"}),
        ("D.6", "2", {"benchmark": "MT50", "metric": "worst_k", "k": 50}),
        ("D.7", "D.4", {"k": 50}),
    ],
)
def test_per_task_tables_average_to_the_whole(published: Published, per_task: str, whole: str, where: dict):
    """The mean over tasks of the mean over seeds is the mean success: an independent check of 660 numbers. Ten seeds
    of 50 episodes make multiples of 0.2, which one digit prints exactly, so that the whole alone is rounded.
    """
    rows = published.of(per_task)
    expected = _values(published.of(whole), **where)
    for row in rows:
        assert row.value is not None
        assert row.value * 5 == pytest.approx(round(row.value * 5), abs=1e-9), row
    for method in RUNGS:
        if method in expected:
            assert _mean(published, per_task, method) == pytest.approx(expected[method], abs=0.05 + 1e-9), method


def _mean(published: Published, per_task: str, method: str) -> float:
    return float(np.mean([row.value for row in published.of(per_task) if row.method == method]))


def test_per_task_tables_give_what_the_text_prints_with_two_digits(published: Published):
    """90.88 of the introduction, 96.76 of Section D.1, and the differences under Table D.1."""
    assert 90.88 <= _mean(published, "D.6", "TOPPO") < 90.89  # 90.888: the text cuts it, as Table D.2 cuts 90.052
    assert _mean(published, "D.5", "+ LN-c + PopArt") == pytest.approx(96.76, abs=0.005)
    adds = {row.method: row.value for row in published.of("D.1") if row.metric == "final_difference"}
    for method, (without, with_popart) in {
        "PopArt without FG-c": ("+ LN-c", "+ LN-c + PopArt"),
        "PopArt with FG-c": ("+ LN-c + FG-c", "+ LN-c + PopArt + FG-c"),
    }.items():
        difference = _mean(published, "D.6", with_popart) - _mean(published, "D.6", without)
        assert difference == pytest.approx(adds[method], abs=0.005 + 1e-9)


def test_tables_agree_with_each_other(published: Published):
    final = _values(published.of("D.10"), benchmark="MT50", metric="final")
    mean = _values(published.of("2"), benchmark="MT50", metric="worst_k", k=50, source=PAPER)
    assert mean == {method: final[method] for method in mean}
    assert _values(published.of("D.1"), metric="final") == {m: final[m] for m in RUNGS[1:5]}
    iqm = _values(published.of("3"), metric="iqm")
    assert iqm == _values(published.of("D.3"), metric="iqm", reward="v1")
    gaps = _values(published.of("D.3"), metric="iqm_gap")
    v2 = _values(published.of("D.3"), metric="iqm", reward="v2")
    for method, gap in gaps.items():  # of unrounded numbers: 0.05 for each of the two, with room for fp
        assert v2[method] - iqm[method] == pytest.approx(gap, abs=0.1 + 1e-9)


def test_table_c1_is_the_one_that_solver_bench_quotes(published: Published):
    found = {(r.details["regime"], r.method, r.metric): r.value for r in published.of("C.1")}
    expected = {(regime.name, PAPER_SOLVER, "speedup"): regime.paper_speedup for regime in REGIMES}
    for regime in REGIMES:
        for metric, values in (("wall_time", regime.paper_ms), ("kkt_residual", regime.paper_kkt)):
            expected |= {(regime.name, solver, metric): value for solver, value in values.items()}
    assert found == expected


def test_budgets(published: Published):
    assert (published.budget("MT10"), published.budget("MT50"), published.budget("MT25")) == (
        20_000_000,
        100_000_000,
        None,
    )


def _damaged(directory: Path, old: str, new: str) -> Path:
    directory.mkdir()
    shutil.copy(WHERE / "table-3.csv", directory)
    path = directory / "table-3.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    return directory


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",45.2,", ",45.2x,", "table-3.csv, line 3: value '45.2x' is not a number; restore it"),
        (",45.2,", ",", "table-3.csv, line 3: has another number of columns"),
        ("metric,", "measure,", "table-3.csv: is damaged, it lacks metric; restore it"),
    ],
)
def test_damaged_tables_are_one_line(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(DiagnosticError) as caught:
        read_published(_damaged(tmp_path / "published", old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tables_are_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"`published=.*nowhere`: no such directory; leave it out"):
        read_published(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no table-\*\.csv"):
        read_published(tmp_path)

"""A live run, as seen from outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.diag import runs
from tests.diag.test_cli import diag  # noqa: F401  (a fixture)
from toppo.combiners.geometry import gradient_norms
from toppo.dump import gram
from toppo_diag.reading.live import look


def test_a_run_in_progress(tmp_path: Path):
    path = runs.record(tmp_path / "live", snapshots=3, complete=False)
    view = look(str(path))
    assert not view.complete
    assert view.env_steps == view.planned_steps == 1_500_000
    assert view.snapshots == (3, 3)
    last = gram(runs.gradients("critic", 2, runs.ENTRIES - 1))
    for task, norm in zip(runs.TASKS, gradient_norms(last), strict=True):
        assert view.tasks[task]["critic norm"] == pytest.approx(norm)
        assert view.tasks[task]["critic share"] == pytest.approx(1 / 4)
    np.testing.assert_allclose([v["success"] for v in view.tasks.values()], runs.success(2, 4))
    assert view.sides["critic"]["spread"] == pytest.approx(gradient_norms(last).max() / gradient_norms(last).min())


def test_before_the_first_collect(tmp_path: Path):
    view = look(str(runs.record(tmp_path / "new", snapshots=0, complete=False)))
    assert view.env_steps is None
    assert view.sides == {}


def test_the_terminal_view(diag, run, bare_run, tmp_path):  # noqa: F811
    code, out, _ = diag("watch", run)  # complete: shows it and ends
    assert code == 0
    assert "2,500,000 of 2,500,000 steps (100%); 5 of 5 snapshots; complete" in out
    assert "door-open" in out
    assert diag("watch", bare_run, "--once")[0] == 0
    assert json.loads(diag("watch", run, "--json")[1])["complete"]
    live = runs.record(tmp_path / "live", snapshots=1, complete=False)
    code, out, err = diag("watch", live)  # not a terminal
    assert (code, "give --once" in err) == (1, True)

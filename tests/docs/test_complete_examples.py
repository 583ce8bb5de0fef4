"""The three examples of docs/examples: short, quick, and each with its report."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import toppo_diag
from tests.docs.pages import ROOT
from toppo.dump import open_dump, verify

EXAMPLES = ROOT / "docs" / "examples"
NEEDS = {"vision": "sklearn", "physics": "torch", "reinforcement": "gymnasium"}
SHORT: dict[str, dict[str, int]] = {"vision": {"STEPS": 31}, "physics": {"STEPS": 61}, "reinforcement": {"UPDATES": 10}}
"""Constants of each example that end it early."""


def example(name: str) -> ModuleType:
    for package in ("torch", NEEDS[name]):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_here_and_short():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 80, path


@pytest.mark.parametrize("name", NEEDS)
def test_it_records_and_has_a_report(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = example(name)
    for constant, value in SHORT[name].items():
        monkeypatch.setattr(module, constant, value)
    path = str(tmp_path / name)
    module.train(path)
    dump = open_dump(path)
    assert dump.complete
    assert verify(path).ok
    assert dump.n_snapshots >= 3
    assert (dump["loss"].values > 0).any()
    assert all(dump.has_layers(side) for side in dump.sides)
    page = tmp_path / f"{name}.html"
    toppo_diag.report(path, out=page)
    text = page.read_text(encoding="utf-8")
    assert all(task in text for task in dump.tasks)
    assert "environment steps" not in text


def trained(name: str, tmp_path: Path, combiner: str | None = None) -> Any:
    return example(name).train(str(tmp_path / f"{name}-{combiner}"), combiner)


@pytest.mark.slow
def test_the_encoder_learns_to_see(tmp_path: Path):
    dump = open_dump(trained("vision", tmp_path))
    assert dump["digits_right"].values[-5:].mean() > 0.8
    assert (dump["loss"].values[-5:].mean(0) < dump["loss"].values[:2].mean(0)).all()


@pytest.mark.slow
def test_fairgrad_learns_the_start_that_the_sum_neglects(tmp_path: Path):
    (path, error), (_, fair) = (trained("physics", tmp_path, combiner) for combiner in (None, "fairgrad"))
    assert fair < 0.8 * error  # 0.06 and 0.26 with this seed; 0.17 to 0.30 and 0.25 to 0.43 with three others
    last = open_dump(path)["loss"].values[-1, 0]
    assert last.argmax() == 2


@pytest.mark.slow
def test_the_sum_neglects_the_task_that_swaps_left_and_right(tmp_path: Path):
    path, lengths = trained("reinforcement", tmp_path)
    assert lengths[3] < 20 < 60 < lengths[:3].min()  # a random policy makes about 22 steps
    assert np.isfinite(open_dump(path)["actor_gram"].values).all()

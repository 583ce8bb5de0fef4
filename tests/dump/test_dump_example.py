"""The example for other trainers is short, and its dump is like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toppo.dump import describe, open_dump, verify

EXAMPLE = Path(__file__).with_name("example_digits.py")


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_its_dump(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from tests.dump.example_digits import EVERY, STEPS, train

    accuracies = train(str(tmp_path / "digits.zarr"))
    assert min(accuracies) > 0.95
    dump = open_dump(tmp_path / "digits.zarr")
    assert verify(dump.path).ok
    np.testing.assert_array_equal(dump.steps, np.arange(0, STEPS, EVERY))
    loss = dump.array("loss")
    assert loss.dims == ("snapshot", "minibatch", "task")
    assert (loss[-1] < loss[0]).all()
    G = dump.gram("trunk").isel(snapshot=0, minibatch=0)
    assert (np.diagonal(G) > 0).all()
    assert describe(dump)["scalars"] == ["loss", "accuracy", "trunk_weights"]


def test_agents_can_weigh_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from tests.dump import example_digits

    monkeypatch.setattr(example_digits, "STEPS", 91)
    accuracies = example_digits.train(str(tmp_path / "digits.zarr"), "taskforce:hidden=16,batch=16")
    assert min(accuracies) > 0.88  # saying "no" to every image makes 0.9, an untrained network about 0.5
    weights = open_dump(tmp_path / "digits.zarr").values("trunk_weights")
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)
    assert weights.std(axis=0).min() > 0

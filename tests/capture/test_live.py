"""`on_record` gives the numbers that `toppo-diag scalars` makes of the dump, and displays take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toppo_diag
from tests.diag.test_scalars import curves, wandb_history
from toppo.dump import open_dump

torch = pytest.importorskip("torch")
record = pytest.importorskip("toppo.capture").record
TASKS = ["a", "b", "c"]


def train(path: Path, show, **options) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(path, model, tasks=TASKS, every=2, on_record=show, **options) as recorder:
        for step in range(7):
            optimizer.zero_grad()
            losses = ((model(torch.randn(8, 4)) - torch.tensor([1.0, 5.0, -1.0])) ** 2).mean(0)
            recorder.backward([loss if (i, step) != (1, 4) else None for i, loss in enumerate(losses)])
            optimizer.step()


@pytest.mark.parametrize("combiner", [None, "fairgrad"])
def test_live_numbers_are_those_of_the_dump(tmp_path, combiner):
    shown: dict[str, dict[int, float]] = {}

    def show(step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            shown.setdefault(name, {})[step] = value

    train(tmp_path / "d", show, combiner=combiner)
    losses = {task: shown.pop(f"loss/{task}") for task in TASKS}
    expected = curves(toppo_diag.scalars(tmp_path / "d").tables["main"].to_dict("records"))
    assert shown.keys() == expected.keys()
    for name in shown:
        assert shown[name] == pytest.approx(expected[name], rel=1e-9), name
    assert list(losses["b"]) == [0, 2, 6]  # it was absent at step 4
    np.testing.assert_allclose([losses["a"][s] for s in (0, 2, 4, 6)], open_dump(tmp_path / "d")["loss"][:, 0, 0])


def test_wandb_takes_them_while_the_run_goes_on(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="toppo", dir=str(tmp_path))
    train(tmp_path / "d", lambda step, numbers: run.log(numbers, step=step))
    run.finish()
    wandb.teardown()  # its own process ends, and with it the writing
    (file,) = tmp_path.glob("wandb/offline*/*.wandb")
    rows = list(wandb_history(file))
    assert [row["_step"] for row in rows] == [0, 2, 4, 6]
    assert all(row["shared/spread"] >= 1 for row in rows)

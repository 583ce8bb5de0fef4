"""`libmtl_hook` on LibMTL's trainer, with a weighting that needs gradients and with one that does not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from toppo.dump import DumpWriter, StepAxis, open_dump

torch = pytest.importorskip("torch")
trainer_of = pytest.importorskip("LibMTL.trainer", reason="needs LibMTL, from its repository")
loss = pytest.importorskip("LibMTL.loss")
metrics = pytest.importorskip("LibMTL.metrics")
adapter = pytest.importorskip("toppo.capture.adapters.libmtl")
data = pytest.importorskip("torch.utils.data")
nn = torch.nn

pytestmark = pytest.mark.slow  # LibMTL is no package of the index that works with torch of today


class OnCPU:
    """LibMTL's trainer names cuda:0 in its code."""

    device = staticmethod(lambda name: torch.device("cpu"))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class NoMetric(metrics.AbsMetric):
    def update_fun(self, pred: torch.Tensor, gt: torch.Tensor) -> None:
        pass

    def score_fun(self) -> list[float]:
        return [0.0]


class Data(data.TensorDataset):
    def __getitem__(self, n: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x, y = super().__getitem__(n)
        return x, {"left": y[:1], "right": y[1:]}


@pytest.mark.parametrize("weighting", ["EW", "PCGrad"])
def test_a_trainer_is_recorded_and_trains_as_before(weighting, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer_of, "torch", OnCPU())
    torch.manual_seed(1)
    x = torch.randn(64, 4)
    y = torch.stack([x.sum(1), -x[:, 0]], 1)
    loader = data.DataLoader(Data(x, y), batch_size=16)

    by_hand: list[torch.Tensor] = []

    def first_jacobian(model: nn.Module) -> torch.Tensor:
        made, shared = model(x[:16]), list(model.encoder.parameters())
        errors = [((made[task] - y[:16, n : n + 1]) ** 2).mean() for n, task in enumerate(("left", "right"))]
        rows = [torch.autograd.grad(error, shared, retain_graph=True) for error in errors]
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])

    def trained(recording: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        random.seed(0)
        trainer = trainer_of.Trainer(
            task_dict={
                task: {"metrics": ["none"], "metrics_fn": NoMetric(), "loss_fn": loss.MSELoss(), "weight": [0]}
                for task in ("left", "right")
            },
            weighting=weighting,
            architecture="HPS",
            encoder_class=lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh()),
            decoders=nn.ModuleDict({task: nn.Linear(6, 1) for task in ("left", "right")}),
            rep_grad=False,
            multi_input=False,
            optim_param={"optim": "sgd", "lr": 0.05},
            scheduler_param=None,
            weight_args={},
            arch_args={},
        )
        if not recording:
            trainer.train(loader, loader, epochs=3)
            return trainer.model.state_dict()
        sides = {"encoder": adapter.libmtl_parameters(trainer)}
        with DumpWriter.create(tmp_path / "d", tasks=["left", "right"], sides=sides, step=StepAxis()) as dump:
            adapter.libmtl_hook(trainer, dump, every=5)
            by_hand.append(first_jacobian(trainer.model))
            trainer.train(loader, loader, epochs=3)
        return trainer.model.state_dict()

    plain, recorded = trained(False), trained(True)
    for name in plain:
        assert torch.equal(plain[name], recorded[name]), name
    read = open_dump(tmp_path / "d")
    assert read.steps.tolist() == [0, 5, 10]
    assert [part.name for part in read.parameters("encoder")] == ["encoder.0.weight", "encoder.0.bias"]
    assert (read["encoder_weights"].values[0] == 1).all() or weighting == "PCGrad"
    assert read["loss"].values[-1].sum() < read["loss"].values[0].sum()
    np.testing.assert_allclose(read["encoder_grad"][0, 0], by_hand[0].numpy(), rtol=1e-5, atol=1e-7)

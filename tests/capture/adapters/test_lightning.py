"""`Record` in Lightning's trainer: the same training as without it, and the gradients of each task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toppo.dump import open_dump

pytestmark = pytest.mark.slow  # Lightning is a large dependency
torch = pytest.importorskip("torch")
data = pytest.importorskip("torch.utils.data")
lightning = pytest.importorskip("lightning.pytorch", reason="needs the extra `lightning`")
MixedPrecision = pytest.importorskip("lightning.pytorch.plugins.precision").MixedPrecision
Record = pytest.importorskip("toppo.capture.adapters.lightning").Record
nn, Tensor = torch.nn, torch.Tensor

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
Y = torch.stack([X.sum(1), 5 * X[:, 0]], 1)


class Module(lightning.LightningModule):
    """Two regressions on a shared encoder."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(6, 1), nn.Linear(6, 1)])
        self.as_dict = as_dict

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        seen = self.encoder(x)
        return ((torch.cat([head(seen) for head in self.heads], 1) - y) ** 2).mean(0)

    def training_step(self, batch: Any, index: int) -> Tensor:
        losses = self.losses(*batch)
        self.task_losses = {"sum": losses[0], "first": losses[1]} if self.as_dict else losses
        return losses.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def quiet(tmp_path: Path, callbacks: Any, max_epochs: int = 2, **options: Any) -> Any:
    """A trainer on the CPU that prints nothing and saves nothing by itself."""
    return lightning.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **options,
    )


def trained(
    tmp_path: Path,
    as_dict: bool = True,
    callbacks: Any = (),
    scale: float | None = None,
    batch: int = 8,
    kind: Any = Module,
    **options: Any,
) -> Module:
    module = kind(as_dict)
    if scale:  # Lightning itself refuses fp16 on the CPU
        options["plugins"] = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    trainer = quiet(tmp_path, callbacks, **options)
    trainer.fit(module, data.DataLoader(data.TensorDataset(X, Y), batch_size=batch))
    return module


def jacobian(n: int) -> np.ndarray:
    """J of the encoder at the start, on the first n samples."""
    fresh = Module(True)
    rows = [
        torch.autograd.grad(loss, list(fresh.encoder.parameters()), retain_graph=True)
        for loss in fresh.losses(X[:n], Y[:n])
    ]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).numpy()


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 4},
        {"precision": "bf16-mixed"},
        {"scale": 1024.0},
    ],
    ids=["plain", "accumulated and clipped", "accumulated unevenly", "bf16", "scaled"],
)
def test_training_is_the_same_and_gradients_are_recorded(tmp_path, options, as_dict):
    plain = trained(tmp_path, **options)
    callback = Record(tmp_path / "d", tasks=["sum", "first"], every=2, slabs=True)
    recorded = trained(tmp_path, as_dict, [callback], **options)
    for a, b in zip(plain.parameters(), recorded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    dump = open_dump(tmp_path / "d")
    parts = options.get("accumulate_grad_batches", 1)
    assert dump.complete
    assert dump.steps.tolist() == list(range(0, 2 * math.ceil(6 / parts), 2))
    assert [part.name for part in dump.parameters("shared")] == ["encoder.0.weight", "encoder.0.bias"]
    J = jacobian(8 * parts)
    half = "precision" in options or "scale" in options
    tolerance = 0.05 if half else 1e-4  # half precision has 8 to 11 bits
    np.testing.assert_allclose(dump["shared_grad"][0, 0], J, rtol=tolerance, atol=tolerance * np.abs(J).max())


def test_accumulation_can_change_between_epochs(tmp_path):
    schedule = lightning.callbacks.GradientAccumulationScheduler({0: 1, 1: 3})
    plain = trained(tmp_path, callbacks=[schedule])
    callback = Record(tmp_path / "d", tasks=["sum", "first"], every=1)
    recorded = trained(tmp_path, callbacks=[schedule, callback])
    for a, b in zip(plain.parameters(), recorded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert open_dump(tmp_path / "d").steps.tolist() == list(range(6 + 2))


def test_an_exception_leaves_a_dump_that_can_be_read(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        trained(tmp_path, callbacks=[Record(tmp_path / "d", tasks=["sum", "first"]), Stop()])
    dump = open_dump(tmp_path / "d")
    assert (dump.complete, dump.n_snapshots) == (False, 1)


def test_an_exception_before_the_training_is_the_one_that_is_raised(tmp_path):
    class Stop(lightning.Callback):
        def on_fit_start(self, *_: Any) -> None:
            raise RuntimeError("before")

    with pytest.raises(RuntimeError, match="before"):
        trained(tmp_path, callbacks=[Record(tmp_path / "d", tasks=["sum", "first"]), Stop()])
    assert not (tmp_path / "d").exists()


def test_the_module_has_its_own_backward_after_the_training(tmp_path):
    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            self.module = module
            raise RuntimeError("stop")

    stop = Stop()
    with pytest.raises(RuntimeError, match="stop"):
        trained(tmp_path, callbacks=[Record(tmp_path / "d", tasks=["sum", "first"]), stop])
    for module in (stop.module, trained(tmp_path, callbacks=[Record(tmp_path / "e", tasks=["sum", "first"])])):
        assert "backward" not in module.__dict__


@pytest.mark.parametrize("form", ["dict", "list"])
def test_a_task_can_be_absent(tmp_path, form):
    class Sometimes(Module):
        def training_step(self, batch: Any, index: int) -> Tensor:
            losses = self.losses(*batch)
            there = index % 3 < 2
            self.task_losses = {"sum": losses[0], "first": losses[1] if there else None}
            if form == "list":
                self.task_losses = list(self.task_losses.values())
            return losses.sum() if there else losses[0]

    recorded = [Record(tmp_path / "d", tasks=["sum", "first"], every=1)]
    modules = [
        trained(tmp_path, callbacks=callbacks, kind=Sometimes, accumulate_grad_batches=2)
        for callbacks in ([], recorded)
    ]
    for a, b in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert open_dump(tmp_path / "d").n_snapshots == 6


def test_two_processes_record_the_gradients_of_the_joined_batch(tmp_path):
    callback = Record(tmp_path / "d", tasks=["sum", "first"], every=1, slabs=True)
    trained(tmp_path, callbacks=[callback], batch=24, strategy="ddp_spawn", devices=2)
    dump = open_dump(tmp_path / "d")
    assert dump.complete
    assert dump.steps.tolist() == [0, 1]  # two epochs, in which each process has one batch of 24
    np.testing.assert_allclose(dump["shared_grad"][0, 0], jacobian(48), rtol=1e-4, atol=1e-5)


def test_a_training_that_goes_on_from_a_checkpoint_is_the_same_as_one_that_did_not_stop(tmp_path):
    def fitted(name: str, epochs: int, checkpoint: Path | None = None) -> tuple[Any, Module]:
        options = {"tasks": ["sum", "first"], "every": 1, "combiner": "famo", "exist": "resume"}
        trainer = quiet(tmp_path, [Record(tmp_path / name, **options)], epochs)
        module = Module(True)
        loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=8)
        trainer.fit(module, loader, ckpt_path=checkpoint, **({"weights_only": True} if checkpoint else {}))
        return trainer, module

    _, whole = fitted("whole", 4)
    trainer, _ = fitted("parts", 2)
    trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    _, parts = fitted("parts", 4, tmp_path / "checkpoint.ckpt")
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    dumps = [open_dump(tmp_path / name) for name in ("whole", "parts")]
    assert dumps[0].steps.tolist() == dumps[1].steps.tolist() == list(range(24))
    np.testing.assert_array_equal(*(dump.values("shared_weights") for dump in dumps))

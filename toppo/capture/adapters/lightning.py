"""Lightning: a callback that records the losses which a module keeps in `task_losses`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from toppo.capture.losses import Losses
from toppo.capture.recorder import Recorder, record


def divided(losses: Losses, parts: int) -> Losses:
    """The losses of one of the batches that make a step. None stays None."""
    if isinstance(losses, Tensor):
        return losses / parts
    if isinstance(losses, Mapping):
        return {task: None if loss is None else loss / parts for task, loss in losses.items()}
    return [None if loss is None else loss / parts for loss in losses]


class Record(Callback):  # type: ignore[misc]  # typed where Lightning is installed
    """Records while a Lightning trainer trains with automatic optimization.

    The module's `training_step` keeps its losses, a dict by task, a list or a tensor (K,), in `self.task_losses`, and
    returns their sum. None in a dict or a list: the task is absent from the batch. The callback takes the place of the
    module's `backward`. Precision, clipping, accumulation and DDP stay Lightning's. With `accumulate_grad_batches`, the
    gradients of all batches of a step are summed before they are recorded. Lightning's checkpoints hold the recorder's
    state, so a training that goes on from one keeps what its combiner has learned.

    Args:
        path: the dump to make.
        tasks: K names.
        options: those of `toppo.record`, such as `every` and `combiner`.
    """

    def __init__(self, path: str | os.PathLike[str], *, tasks: Sequence[str], **options: Any) -> None:
        self._record = {"path": path, "tasks": tasks, **options}
        self.recorder: Recorder | None = None
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self._loaded if self.recorder is None else self.recorder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict  # before there is a recorder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        planned = [s.scheduling.values() for s in trainer.callbacks if isinstance(s, GradientAccumulationScheduler)]
        most = max([trainer.accumulate_grad_batches, *chain.from_iterable(planned)])
        self.recorder = recorder = record(model=trainer.strategy.model, scaler=scaler, accumulate=most, **self._record)
        if self._loaded:
            recorder.load_state_dict(self._loaded)
            self._loaded = {}  # it is not that of another training

        def backward(loss: Tensor) -> None:
            parts = trainer.accumulate_grad_batches
            full = (trainer.fit_loop.batch_idx + 1) % parts == 0
            losses = divided(pl_module.task_losses, parts)
            recorder.backward(losses, step=trainer.global_step, ends_step=full or trainer.is_last_batch)

        pl_module.backward = backward

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.__dict__.pop("backward", None)  # the class has the module's own
        if self.recorder is not None:
            self.recorder.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        pl_module.__dict__.pop("backward", None)
        if self.recorder is not None:  # Lightning can fail before the training starts
            self.recorder.__exit__(type(exception), exception, None)

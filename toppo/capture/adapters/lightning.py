"""Lightning: a callback that records the losses which a module keeps in `task_losses`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from toppo.capture.recorder import record


class Record(Callback):  # type: ignore[misc]  # typed where Lightning is installed
    """Records while a Lightning trainer trains with automatic optimization.

    The module's `training_step` keeps its losses, a dict by task or a tensor (K,), in `self.task_losses`, and returns
    their sum. The callback takes the place of the module's `backward`. Precision, clipping, accumulation and DDP stay
    Lightning's. With `accumulate_grad_batches`, the gradients of all batches of a step are summed before they are
    recorded.

    Args:
        path: the dump to make.
        tasks: K names.
        options: those of `toppo.record`, such as `every` and `combiner`.
    """

    def __init__(self, path: str | os.PathLike[str], *, tasks: Sequence[str], **options: Any) -> None:
        self._record = {"path": path, "tasks": tasks, **options}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        planned = [s.scheduling.values() for s in trainer.callbacks if isinstance(s, GradientAccumulationScheduler)]
        most = max([trainer.accumulate_grad_batches, *chain.from_iterable(planned)])
        self.recorder = record(model=trainer.strategy.model, scaler=scaler, accumulate=most, **self._record)

        def backward(loss: Tensor) -> None:
            losses, parts = pl_module.task_losses, trainer.accumulate_grad_batches
            if isinstance(losses, dict):
                losses = {task: loss / parts for task, loss in losses.items()}
            else:
                losses = losses / parts
            full = (trainer.fit_loop.batch_idx + 1) % parts == 0
            self.recorder.backward(losses, step=trainer.global_step, ends_step=full or trainer.is_last_batch)

        pl_module.backward = backward

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module.backward
        self.recorder.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.recorder.__exit__(type(exception), exception, None)

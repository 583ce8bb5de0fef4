"""Hugging Face: a `Trainer` that trains on several losses and records them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from toppo.capture.recorder import Recorder, record


class RecordedTrainer(Trainer):  # type: ignore[misc]  # typed where transformers is installed
    """A `Trainer` whose loss is the sum of the losses of K tasks. A subclass gives them by `task_losses`.

    Clipping, schedules and accumulation stay the Trainer's. With `gradient_accumulation_steps`, the gradients of all
    batches of a step are summed before they are recorded.

    Args:
        args: those of `Trainer`.
        record: the arguments of `toppo.record` except the model: `path`, `tasks`, `every`, ...
        options: those of `Trainer`.
    """

    def __init__(self, *args: Any, record: Mapping[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self._record = record
        self._recorder: Recorder | None = None

    def task_losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Tensor | None], Any]:
        """The loss of each task by name, and the outputs of the model. A subclass overrides this.

        None, or a missing name: the task is absent from the batch.
        """
        raise NotImplementedError

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        losses, outputs = self.task_losses(model, inputs)
        total = sum(loss for loss in losses.values() if loss is not None)
        return (total, outputs) if return_outputs else total

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        if self._recorder is None:
            parts = self.args.gradient_accumulation_steps
            made = record(model=model, scaler=self.accelerator.scaler, accumulate=parts, **self._record)
            self._recorder = self._recording.enter_context(made)
        with self.compute_loss_context_manager():
            losses, _ = self.task_losses(model, self._prepare_inputs(inputs))
        parts = self.current_gradient_accumulation_steps
        shares = {task: loss / parts for task, loss in losses.items() if loss is not None}
        ends_step = self.accelerator.sync_gradients
        self._recorder.backward(shares, step=self.state.global_step, ends_step=ends_step)
        return torch.stack(list(shares.values())).detach().sum()

    def train(self, *args: Any, **options: Any) -> Any:
        self._recorder = None  # each training is a recording of its own
        with ExitStack() as self._recording:
            return super().train(*args, **options)

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

    Clipping, schedules and accumulation stay the Trainer's. With `gradient_accumulation_steps`, the first batch of a
    step is recorded.

    Args:
        args: those of `Trainer`.
        record: the arguments of `toppo.record` except the model: `path`, `tasks`, `every`, ...
        options: those of `Trainer`.
    """

    def __init__(self, *args: Any, record: Mapping[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self._record = record
        self._recorder: Recorder | None = None

    def task_losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Any]:
        """The loss of each task by name, and the outputs of the model. A subclass overrides this."""
        raise NotImplementedError

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        losses, outputs = self.task_losses(model, inputs)
        total = sum(losses.values())
        return (total, outputs) if return_outputs else total

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        if self._recorder is None:
            made = record(model=model, scaler=self.accelerator.scaler, **self._record)
            self._recorder = self._recording.enter_context(made)
        with self.compute_loss_context_manager():
            losses, _ = self.task_losses(model, self._prepare_inputs(inputs))
        parts = {task: loss / self.current_gradient_accumulation_steps for task, loss in losses.items()}
        self._recorder.backward(parts, step=self.state.global_step)
        return torch.stack(list(parts.values())).detach().sum()

    def train(self, *args: Any, **options: Any) -> Any:
        with ExitStack() as self._recording:
            return super().train(*args, **options)

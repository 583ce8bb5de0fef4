"""Hugging Face: a `Trainer` that trains on several losses and records them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from toppo.capture.recorder import Recorder, record

STATE = "toppo_recorder.pt"
"""The file of a checkpoint that holds the state of the recorder."""


class RecordedTrainer(Trainer):  # type: ignore[misc]  # typed where transformers is installed
    """A `Trainer` whose loss is the sum of the losses of K tasks. A subclass gives them by `task_losses`.

    Clipping, schedules and accumulation stay the Trainer's. With `gradient_accumulation_steps`, the gradients of all
    batches of a step are summed before they are recorded. Checkpoints hold the state of the recorder, so a training
    that goes on from one keeps what its combiner has learned.

    Args:
        args: those of `Trainer`.
        record: the arguments of `toppo.record` except the model: `path`, `tasks`, `every`, ...
        options: those of `Trainer`.
    """

    def __init__(self, *args: Any, record: Mapping[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self._record = record
        self._recorder: Recorder | None = None
        self._saved: dict[str, Any] | None = None
        self.add_callback(_Keeper(self))

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
            if self._saved is not None:
                made.load_state_dict(self._saved)
            self._recorder = self._recording.enter_context(made)
        with self.compute_loss_context_manager():
            losses, _ = self.task_losses(model, self._prepare_inputs(inputs))
        parts = self.current_gradient_accumulation_steps
        shares = {task: loss / parts for task, loss in losses.items() if loss is not None}
        ends_step = self.accelerator.sync_gradients
        self._recorder.backward(shares, step=self.state.global_step, ends_step=ends_step)
        return torch.stack(list(shares.values())).detach().sum()

    def keep(self, checkpoint: Path) -> None:
        """Save the state of the recorder in a checkpoint of the Trainer, if the training has a recorder yet.

        Args:
            checkpoint: directory of the checkpoint.
        """
        if self._recorder is not None:
            torch.save(self._recorder.state_dict(), checkpoint / STATE)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        self._recorder = None  # each training is a recording of its own
        at = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        state = Path(at) / STATE if at else None
        self._saved = torch.load(state, weights_only=True) if state is not None and state.is_file() else None
        with ExitStack() as self._recording:
            return super().train(resume_from_checkpoint, *args, **options)


class _Keeper(TrainerCallback):  # type: ignore[misc]
    """Adds the state of the recorder to each checkpoint that the Trainer has saved."""

    def __init__(self, trainer: RecordedTrainer) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.is_world_process_zero:
            self._trainer.keep(Path(args.output_dir) / f"checkpoint-{state.global_step}")

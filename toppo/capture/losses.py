"""The losses of one step, as a training loop has them: a tensor, a list or a dict, some tasks perhaps absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toppo.capture.errors import CaptureError
from toppo.common.names import suggestion

Losses = Tensor | Sequence[Tensor | None] | Mapping[str, Tensor | None]
"""K losses: a tensor (K,), a list in the order of the tasks, or a dict by task name. None: the task is absent."""


@dataclass(frozen=True)
class TaskLosses:
    """K checked losses.

    Attributes:
        given: the losses as they came.
        values: one scalar per task; None where the task is absent.
    """

    given: Losses
    values: tuple[Tensor | None, ...]

    @property
    def moving(self) -> list[tuple[int, Tensor]]:
        """(i, L_i) of the tasks whose loss has a graph. The loss of a task can also be a constant."""
        return [(i, value) for i, value in enumerate(self.values) if value is not None and value.requires_grad]

    def total(self, weights: Tensor | None = None) -> Tensor:
        """The loss to walk: sum_i L_i, or sum_i w_i L_i.

        Without weights its gradient has the same bits as that of `sum(losses)`.

        Args:
            weights: w, (K,).
        """
        if weights is None:
            # A list is summed as the loop that this call replaces would sum it: from the left.
            some = [value for _, value in self.moving]
            return self.given.sum() if isinstance(self.given, Tensor) else sum(some[1:], start=some[0])
        return torch.stack([weights[i].to(value) * value for i, value in self.moving]).sum()

    def numbers(self) -> Tensor:
        """The losses as numbers, (K,), float64, on their own device. 0 where a task is absent."""
        zero = torch.zeros((), dtype=torch.float64, device=self.moving[0][1].device)
        return torch.stack([zero if v is None else v.detach().to(zero) for v in self.values])


def task_losses(losses: Losses, tasks: Sequence[str]) -> TaskLosses:
    """The losses in the order of the tasks, checked.

    Args:
        losses: K losses.
        tasks: K task names.

    Raises:
        CaptureError: a name is unknown, the number of losses differs from K, a loss is no scalar, or no loss requires a
            gradient.
    """
    named = _named(losses, tasks)
    values: list[Tensor | None] = []
    for task in tasks:
        value = named.get(task)
        if value is not None and (not isinstance(value, Tensor) or value.numel() != 1):
            what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
            raise CaptureError(f"the loss of task {task!r} is {what}; give a tensor of one number, such as its mean")
        values.append(None if value is None else value.reshape(()))
    if not any(value is not None and value.requires_grad for value in values):
        raise CaptureError(
            "no loss requires a gradient; compute the losses outside torch.no_grad(), from trainable parameters"
        )
    return TaskLosses(losses, tuple(values))


def _named(losses: Any, tasks: Sequence[str]) -> dict[str, Any]:
    if isinstance(losses, Mapping):
        for name in losses:
            if name not in tasks:
                raise CaptureError(
                    f"the losses have a task {name!r} that the recorder was not given: {suggestion(str(name), tasks)}; "
                    "name every task in `tasks`, and leave out those that are absent from a batch"
                )
        return dict(losses)
    if isinstance(losses, Tensor):
        if losses.dim() != 1 or len(losses) != len(tasks):
            raise CaptureError(
                f"the losses are a tensor of shape {tuple(losses.shape)}; give ({len(tasks)},), one loss per task"
            )
        return dict(zip(tasks, losses.unbind(), strict=True))
    if not isinstance(losses, Sequence) or isinstance(losses, str):
        raise CaptureError(
            f"the losses are {type(losses).__name__}; give a tensor ({len(tasks)},), a list, or a dict by task name"
        )
    if len(losses) != len(tasks):
        raise CaptureError(
            f"there are {len(losses)} losses for {len(tasks)} tasks; give one per task, with None for an absent task"
        )
    return dict(zip(tasks, losses, strict=True))

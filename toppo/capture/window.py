"""One step of the optimizer whose gradients are wanted: what its calls of `backward` add up to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from toppo.capture.errors import CaptureError
from toppo.capture.losses import TaskLosses
from toppo.capture.rows import Rows


class Window:
    """The calls of `backward` that make one step.

    Args:
        step: number of the step.
        due: whether it is recorded. If not, only a combiner needs it.

    Attributes:
        rows: per-task gradients, summed over the calls.
        scale: what a `GradScaler` multiplied the losses with, on their device.
        before: `.grad` of each parameter before the step, where a combiner sets it.
        present: for each task, whether a call had its loss.
        weights: w (K,) of the step, where the user gave them.
        numbers: what else the user wants recorded, from the last call that gave it.
    """

    def __init__(self, step: int, due: bool) -> None:
        self.step, self.due = step, due
        self.rows: Rows | None = None
        self.scale: float | Tensor = 1.0
        self.before: list[Tensor | None] = []
        self.present: list[bool] = []
        self._sums: Tensor = torch.zeros(0)
        self.weights: Tensor | None = None
        self.numbers: dict[str, Any] = {}

    def add(self, given: TaskLosses, weights: Tensor | None, numbers: Mapping[str, Any]) -> None:
        """Add what one call of `backward` brought besides its gradients."""
        here = [value is not None for value in given.values]
        values = given.numbers()
        if not self.present:
            self.present, self._sums, self.weights = here, values, weights
        else:
            self._sums = self._sums + values
            self.present = [a or b for a, b in zip(self.present, here, strict=True)]
        self.numbers |= numbers

    def check_weights(self, weights: Tensor | None) -> None:
        """Refuse weights that are not those of the calls before.

        Raises:
            CaptureError: they differ, so no weights describe the step.
        """
        before = self.weights
        if self.present and (
            (weights is None) != (before is None)
            or (weights is not None and before is not None and not torch.equal(weights, before))
        ):
            raise CaptureError("`weights`: differ between two calls of one step; give the same in all of them")

    @property
    def losses(self) -> Tensor:
        """The losses summed over the calls, (K,), float64; NaN for an absent task."""
        present = torch.tensor(self.present, device=self._sums.device)
        return torch.where(present, self._sums, torch.nan)

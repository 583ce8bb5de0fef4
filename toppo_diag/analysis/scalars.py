"""The scalars that people want beside their other curves, over the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.scalars import scalars
from toppo_diag.analysis.presence import Known
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.typical import typical


@dataclass(frozen=True)
class ScalarSeries:
    """The numbers of `toppo.combiners.scalars.Scalars` at T steps, medians over the minibatches of each step.

    Attributes:
        steps: (T,).
        whole: name -> (T,).
        by_task: name -> (T, K); NaN where a task was absent from all minibatches of a step.
    """

    steps: Int[np.ndarray, "T"]
    whole: dict[str, Float[np.ndarray, "T"]]
    by_task: dict[str, Float[np.ndarray, "T K"]]

    def rows(self, side: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """A long table: step, side, name, task ("" for the whole side), value. A task has no row where it was absent.

        Args:
            side: the side of the Grams.
            tasks: the names of the K tasks.
        """
        return [
            {"step": step, "side": side, "name": name, "task": task, "value": float(value)}
            for t, step in enumerate(self.steps.tolist())
            for name, values in (*self.whole.items(), *self.by_task.items())
            for task, value in zip(tasks if name in self.by_task else ("",), np.atleast_1d(values[t]), strict=True)
            if not np.isnan(value)
        ]

    @property
    def medians(self) -> dict[str, float]:
        """The median of each number of the whole side over the steps."""
        return {name: typical(values).median for name, values in self.whole.items()}


def scalar_series(
    steps: Int[np.ndarray, "N"],
    gram: Float[np.ndarray, "N K K"],
    weights: Float[np.ndarray, "N K"] | None,
    known: Known = None,
    decided: bool = True,
) -> ScalarSeries:
    """The scalars of N Grams, from the steps at which each was taken and the weights of training.

    Args:
        steps: step of each Gram.
        gram: G.
        weights: w on the gradients of each Gram; None takes the weights of a mean.
        known: whether each task is known in each Gram; None where all are.
        decided: whether these weights decided the step. If they are assumed, no task is called starved.
    """
    if known is not None:
        gram = np.where(known[:, :, None] & known[:, None, :], gram, np.nan)
    at, each = Steps.of(steps), scalars(gram, weights)
    return ScalarSeries(
        steps=at.env_steps,
        whole={name: at.median(of) for name, of in each.whole.items() if decided or name != "starved_tasks"},
        by_task={name: at.median(values) for name, values in each.by_task.items()},
    )

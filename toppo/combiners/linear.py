"""The two fixed weightings: mean and sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record


@dataclass
class Mean(Combiner):
    """Mean: w = 1 / K, so d is the gradient of the mean loss. This is multi-task PPO without any balancing.

    K counts every task, also dead ones.

    Example:
        >>> Mean().combine(np.diag([1.0, 4.0])).weights
        array([0.5, 0.5])
    """

    name: ClassVar[str] = "mean"
    dead_tasks: ClassVar[DeadTasks] = "keep"

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        return Combination(np.full(len(gram), 1 / len(gram)), Record())


@dataclass
class Sum(Combiner):
    """Sum: w = 1 for every task, so d is the gradient of the summed loss.

    Example:
        >>> Sum().combine(np.diag([1.0, 4.0])).weights
        array([1., 1.])
    """

    name: ClassVar[str] = "sum"
    dead_tasks: ClassVar[DeadTasks] = "keep"

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        return Combination(np.ones(len(gram)), Record())

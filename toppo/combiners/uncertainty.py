"""Uncertainty weighting: weights from one learned log-variance per task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record, require_positive
from toppo.combiners.gram import check_positive_losses


@dataclass
class UncertaintyWeighting(Combiner):
    """Uncertainty weighting: w_i = exp(-s_i) / 2, with a learned log-variance s_i = log sigma_i^2 per task.

    Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, Equation 7. The loss is
    sum_i exp(-s_i) L_i / 2 + s_i / 2. Each call returns the weights, and then takes one step of gradient descent on s.
    The gradient is (1 - exp(-s_i) L_i) / 2, so the weights come to rest at w_i = 1 / (2 L_i).

    Weights are positive. They do not depend on G, so a dead task is weighed like any other. The method is not
    scale-invariant. Losses must be positive, because s does not come to rest for a loss <= 0.

    State: the log-variances, shape (K,), zeros before the first call.

    Args:
        lr: step length on s, > 0.

    Example:
        >>> UncertaintyWeighting().combine(np.eye(2), losses=[1.0, 3.0]).weights
        array([0.5, 0.5])
    """

    name: ClassVar[str] = "uw"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_losses: ClassVar[bool] = True
    needs_positive_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("log_variance",)

    lr: float = 0.025

    def __post_init__(self) -> None:
        require_positive(self.name, lr=self.lr)

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        assert losses is not None  # combine checked it
        check_positive_losses(losses, self.name)
        log_variance = self.recall("log_variance", losses.shape)
        weights = np.exp(-log_variance) / 2
        self.remember(log_variance=log_variance - self.lr * (0.5 - weights * losses))
        return Combination(weights, Record())

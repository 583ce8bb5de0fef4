"""DWA: weights from how slowly each task's loss falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record, require_positive
from toppo.combiners.gram import check_positive_losses


@dataclass
class DWA(Combiner):
    """Dynamic Weight Average: w = K softmax(r / temperature) with r_i = L_i(t - 1) / L_i(t - 2).

    Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, Equation 7. L_i(t) is the mean of task i's
    loss over epoch t. In the first two epochs every weight is 1.

    Weights are positive and sum to K. They do not depend on G, so a dead task is weighed like any other. The method is
    not scale-invariant. Losses must be positive.

    State: the mean losses of the last two epochs (NaN before they exist), the running sum of the current epoch, and the
    number of calls so far.

    Args:
        temperature: > 0; a larger one makes the weights more even.
        period: number of calls in an epoch, >= 1.

    Example:
        >>> DWA().combine(np.eye(2), losses=[1.0, 3.0]).weights
        array([1., 1.])
    """

    name: ClassVar[str] = "dwa"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_losses: ClassVar[bool] = True
    needs_positive_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("averages", "running", "calls")

    temperature: float = 2.0
    period: int = 1

    def __post_init__(self) -> None:
        require_positive(self.name, temperature=self.temperature, period=self.period)

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
        K = len(losses)
        older, newer = averages = self.recall("averages", (2, K), fill=np.nan)
        weights = np.ones(K) if np.isnan(averages).any() else K * softmax(newer / older / self.temperature)
        running = self.recall("running", (K,)) + losses
        calls = self.recall("calls", ()) + 1
        if calls % self.period == 0:
            averages = np.stack([newer, running / self.period])
            running = np.zeros(K)
        self.remember(averages=averages, running=running, calls=calls)
        return Combination(weights, Record())

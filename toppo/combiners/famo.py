"""FAMO: weights that lower all losses at the same relative rate, from the losses alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import (
    Claims,
    Combination,
    Combiner,
    DeadTasks,
    Record,
    require_at_least_zero,
    require_positive,
)
from toppo.combiners.gram import check_positive_losses

_BETA_1, _BETA_2, _ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass
class FAMO(Combiner):
    """FAMO: w_i = c z_i / L_i with z = softmax(xi) and c = 1 / sum_i(z_i / L_i), with learned logits xi.

    Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023, Algorithm 1. Adam moves xi along the gradient
    of <z, log L_before - log L_after>. L_after comes from the next call, as in Algorithm 1. The authors' code evaluates
    the same batch twice instead. A map from Grams and losses to weights cannot do that.

    Weights are positive and sum to 1. They do not depend on G, so a dead task is weighed like any other. The method is
    not scale-invariant. Losses must be positive.

    State: the logits, Adam's two moments and its number of steps, and the last losses (NaN before the first call).

    Args:
        lr: Adam's learning rate on the logits, > 0.
        weight_decay: L2 decay of the logits, the paper's gamma, >= 0.

    Example:
        >>> FAMO().combine(np.eye(2), losses=[1.0, 3.0]).weights
        array([0.75, 0.25])
    """

    name: ClassVar[str] = "famo"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_losses: ClassVar[bool] = True
    needs_positive_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("logits", "first_moment", "second_moment", "steps", "last_losses")

    lr: float = 0.025
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self.name, lr=self.lr)
        require_at_least_zero(self.name, weight_decay=self.weight_decay)

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
        logits = self.recall("logits", losses.shape)
        last_losses = self.recall("last_losses", losses.shape, fill=np.nan)
        if not np.isnan(last_losses).any():
            logits = self._step(logits, np.log(last_losses) - np.log(losses))
        self.remember(logits=logits, last_losses=losses)
        ratios = softmax(logits) / losses
        return Combination(ratios / ratios.sum(), Record())

    def _step(self, logits: Float[np.ndarray, "K"], decrease: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        """The logits after one step of Adam along the gradient of <softmax(logits), decrease>."""
        z = softmax(logits)
        gradient = z * (decrease - z @ decrease) + self.weight_decay * logits
        first = _BETA_1 * self.recall("first_moment", logits.shape) + (1 - _BETA_1) * gradient
        second = _BETA_2 * self.recall("second_moment", logits.shape) + (1 - _BETA_2) * gradient**2
        steps = self.recall("steps", ()) + 1
        self.remember(first_moment=first, second_moment=second, steps=steps)
        corrected = np.sqrt(second / (1 - _BETA_2**steps)) + _ADAM_EPS
        stepped: np.ndarray = logits - self.lr * first / (1 - _BETA_1**steps) / corrected
        return stepped

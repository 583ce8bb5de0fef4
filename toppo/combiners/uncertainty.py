"""Uncertainty weighting: learn one log-variance per task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record, require_positive
from toppo.combiners.gram import check_positive_losses


@dataclass
class UncertaintyWeighting(Combiner):
    """Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018, Equation 7, in log-variances s_i = log sigma_i^2).

    The loss is sum_i exp(-s_i) L_i / 2 + s_i / 2. So w_i = exp(-s_i) / 2, and each call then takes one step of gradient
    descent on s, whose gradient is (1 - exp(-s_i) L_i) / 2; at rest w_i = 1 / (2 L_i). Weights positive, blind to G;
    not scale-invariant. Losses must be positive, for s has no rest at others.

    State: the log-variances, shape (K,), zeros before the first call.

    Options:
        lr: step length on s, > 0.
    """

    name: ClassVar[str] = "uw"
    needs_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("log_variance",)

    lr: float = 0.025

    def __post_init__(self) -> None:
        require_positive(self.name, lr=self.lr)

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
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

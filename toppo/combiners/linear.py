"""The two fixed weightings: mean and sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record


@dataclass
class Mean(Combiner):
    """w = 1 / K: the gradient of the mean loss, multi-task PPO without an intervention."""

    name: ClassVar[str] = "mean"

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
        return Combination(np.full(len(gram), 1 / len(gram)), Record())


@dataclass
class Sum(Combiner):
    """w = 1: the gradient of the summed loss."""

    name: ClassVar[str] = "sum"

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
        return Combination(np.ones(len(gram)), Record())

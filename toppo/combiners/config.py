"""ConFIG: the direction at equal angles to all gradients, as long as their projections on it together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status
from toppo.combiners.geometry import cosines, gradient_norms
from toppo.combiners.gram import alive_tasks


@dataclass
class ConFIG(Combiner):
    """ConFIG (Liu et al., Conflict-free Training of PINNs, ICLR 2025, Equation 2): d = (sum_i <g_i, v>) v, v = U^+ 1 /
    ||U^+ 1||.

    With U the unit gradients, U^+ 1 = U' R^+ 1. Weights of either sign, linear under scaling of the tasks (v depends on
    their directions alone), not scale-invariant. Non-conflicting where the tasks are independent: U v is constant
    there. Dead tasks get weight 0. Where U^+ 1 = 0 the weights are 0 and the status says PARETO_STATIONARY.
    """

    name: ClassVar[str] = "config"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        norms = gradient_norms(gram)
        alive = alive_tasks(norms)
        weights = np.zeros(len(gram))
        if not alive.any():
            return Combination(weights, Record(status=Status.NO_GRADIENT))
        R = cosines(gram)[np.ix_(alive, alive)]
        shares = np.linalg.pinv(R, hermitian=True).sum(axis=1)
        aligned = R @ shares  # <g_i / ||g_i||, U^+ 1>: ones, where the tasks are independent
        squared_length = shares @ aligned
        if squared_length <= len(R) * EPS * np.abs(shares).sum():
            return Combination(weights, Record(status=Status.PARETO_STATIONARY))
        weights[alive] = (norms[alive] @ aligned) / squared_length * shares / norms[alive]
        return Combination(weights, Record(residual=float(np.abs(aligned - 1).max())))

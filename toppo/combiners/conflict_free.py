"""ConFIG (Conflict-Free Inverse Gradients), under the name `config` in specs. This is not a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status
from toppo.combiners.geometry import cosines, gradient_norms


@dataclass
class ConFIG(Combiner):
    """ConFIG: a direction at equal angles to all gradients, as long as the sum of their projections on it.

    Liu et al., Conflict-free Training of Physics-Informed Neural Networks, ICLR 2025, Equation 2:
    d = (sum_i <g_i, v>) v with v = U^+ 1 / ||U^+ 1||. U (K, P) holds the unit gradients g_i / ||g_i||, and U^+ is its
    pseudo-inverse. On the Gram, U^+ 1 = U' R^+ 1 with R the correlation matrix.

    Weights have either sign. d is linear under scaling of the tasks, because v depends on the directions of the
    gradients alone. It is not scale-invariant. Where the gradients are independent, all <g_i, v> / ||g_i|| are equal
    and d conflicts with no task. Where U^+ 1 = 0 the weights are 0 with status PARETO_STATIONARY. A dead task gets
    weight 0.

    Example:
        >>> ConFIG().combine(np.diag([1.0, 4.0])).weights
        array([1.5 , 0.75])
    """

    name: ClassVar[str] = "config"

    @property
    def claims(self) -> Claims:
        return Claims(linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        norms = gradient_norms(gram)
        R = np.ascontiguousarray(cosines(gram))  # so that rounding does not depend on the memory order of G
        shares = np.linalg.pinv(R, hermitian=True).sum(axis=1)
        aligned = R @ shares  # <g_i / ||g_i||, U^+ 1>; all 1 where the gradients are independent
        squared_length = shares @ aligned
        if squared_length <= len(R) * EPS * np.abs(shares).sum():
            return Combination(np.zeros(len(R)), Record(status=Status.PARETO_STATIONARY))
        weights = (norms @ aligned) / squared_length * shares / norms
        return Combination(weights, Record(residual=float(np.abs(aligned - 1).max())))

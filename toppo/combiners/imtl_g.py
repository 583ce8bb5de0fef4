"""IMTL-G: the direction with equal projections on all gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status
from toppo.combiners.geometry import cosines, gradient_norms


@dataclass
class IMTLG(Combiner):
    """IMTL-G: weights that sum to 1 and make the projections <g_i, d> / ||g_i|| equal.

    Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, Equation 3. With n_i = ||g_i|| and the correlation
    matrix R, this condition is R (n w) proportional to 1. Where gradients are dependent, the pseudo-inverse of R solves
    it (Quinton and Rey, 2024).

    Weights have either sign. The direction of d is scale-invariant, its length is not. Where the weights cannot sum to
    1, d would be infinite. The weights are then 0 with status PARETO_STATIONARY. A dead task gets weight 0.

    Example:
        >>> IMTLG().combine(np.diag([1.0, 9.0])).weights
        array([0.75, 0.25])
    """

    name: ClassVar[str] = "imtl-g"

    @property
    def claims(self) -> Claims:
        return Claims(homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        R = np.ascontiguousarray(cosines(gram))  # so that rounding does not depend on the memory order of G
        shares = np.linalg.pinv(R, hermitian=True).sum(axis=1)
        ratios = shares / gradient_norms(gram)
        if abs(ratios.sum()) <= len(R) * EPS * np.abs(ratios).sum():
            return Combination(np.zeros(len(R)), Record(status=Status.PARETO_STATIONARY))
        return Combination(ratios / ratios.sum(), Record(residual=float(np.abs(R @ shares - 1).max())))

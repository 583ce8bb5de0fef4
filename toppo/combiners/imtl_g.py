"""IMTL-G: the direction with equal projections on all gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status
from toppo.combiners.geometry import cosines, gradient_norms
from toppo.combiners.gram import alive_tasks


@dataclass
class IMTLG(Combiner):
    """IMTL-G (Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, Equation 3): <g_i, d> / ||g_i|| equal, sum
    w = 1.

    Written R (n w) ~ 1 with n = ||g_i||, solved by the pseudo-inverse of R where tasks are dependent (Quinton and Rey,
    2024). Weights of either sign, not scale-invariant (only the direction of d is). Dead tasks leave the problem. Where
    the weights cannot sum to 1 (d would be infinite) they are 0 and the status says PARETO_STATIONARY.
    """

    name: ClassVar[str] = "imtl-g"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(homogeneous=True)

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
        ratios = shares / norms[alive]
        if abs(ratios.sum()) <= len(R) * EPS * np.abs(ratios).sum():
            return Combination(weights, Record(status=Status.PARETO_STATIONARY))
        weights[alive] = ratios / ratios.sum()
        return Combination(weights, Record(residual=float(np.abs(R @ shares - 1).max())))

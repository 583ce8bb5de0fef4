"""MGDA: the least convex combination of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record, Status
from toppo.combiners.cone import min_norm_point, unit_factor, worst_conflict
from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks


@dataclass
class MGDA(Combiner):
    """MGDA (Désidéri, C. R. Acad. Sci. 350, 2012; Sener and Koltun, NeurIPS 2018, Equation 3): min w'Gw over the
    simplex.

    Weights non-negative, summing to 1. Non-conflicting: <g_i, d> >= ||d||^2. Not scale-invariant: it favours the
    smallest gradients. Exact by an active set, where Frank-Wolfe only approaches it. A dead task would be its own least
    combination and stop all others: it gets weight 0 and leaves the problem.
    """

    name: ClassVar[str] = "mgda"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, non_conflicting=True, homogeneous=True)

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
        weights[alive] = min_norm_point((unit_factor(gram) * norms)[:, alive])
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))

"""MGDA: the shortest convex combination of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record
from toppo.combiners.cone import min_norm_point, unit_factor, worst_conflict
from toppo.combiners.geometry import gradient_norms


@dataclass
class MGDA(Combiner):
    """MGDA: the weights on the simplex that minimise ||d||^2 = w'G w.

    Désidéri, C. R. Acad. Sci. 350, 2012; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization,
    NeurIPS 2018, Equation 3. An active-set method finds the exact weights. The Frank-Wolfe method only approaches them.

    Weights are non-negative and sum to 1. d conflicts with no task, because <g_i, d> >= ||d||^2. The method is not
    scale-invariant: it favours the shortest gradients. A dead task gets weight 0 and leaves the problem. Otherwise
    its zero gradient would be the shortest combination, and no task could move.

    Example:
        >>> MGDA().combine(np.diag([1.0, 3.0])).weights
        array([0.75, 0.25])
    """

    name: ClassVar[str] = "mgda"

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, non_conflicting=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        weights = min_norm_point(unit_factor(gram) * gradient_norms(gram))
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))

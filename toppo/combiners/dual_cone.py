"""UPGrad and DualProj: projections on the dual cone, the directions that conflict with no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record
from toppo.combiners.cone import project_on_dual_cone, unit_factor, worst_conflict
from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks


def _over_norms(coefficients: Float[np.ndarray, "K"], norms: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """Weights of the gradients from coefficients of their unit vectors; a dead task keeps the mean's 1 / K, which moves
    nothing."""
    weights = np.full(len(norms), 1 / len(norms))
    np.divide(coefficients, norms, out=weights, where=alive_tasks(norms))
    return weights


@dataclass
class DualProj(Combiner):
    """DualProj (Lopez-Paz and Ranzato, GEM, NeurIPS 2017, Equation 11): the mean gradient projected on the dual cone.

    Weights at least 1 / K. Non-conflicting. Not scale-invariant.
    """

    name: ClassVar[str] = "dualproj"

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
        weights = _over_norms(project_on_dual_cone(unit_factor(gram), norms / len(gram)), norms)
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))


@dataclass
class UPGrad(Combiner):
    """UPGrad (Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024, Equation 5): the mean of the
    projections.

    Each gradient is projected on the dual cone by itself. Weights at least 1 / K. Non-conflicting, linear under scaling
    of the tasks, not scale-invariant.
    """

    name: ClassVar[str] = "upgrad"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, non_conflicting=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        norms = gradient_norms(gram)
        factor = unit_factor(gram)
        # Row i is the projection of the unit vector e_i: linear, so that its norm can wait.
        projected = np.stack([project_on_dual_cone(factor, unit) for unit in np.eye(len(gram))])
        weights = _over_norms((norms / len(gram)) @ projected, norms)
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))

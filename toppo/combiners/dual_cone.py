"""UPGrad and DualProj: projections on the dual cone, which holds the directions that conflict with no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record
from toppo.combiners.cone import project_on_dual_cone, unit_factor, worst_conflict
from toppo.combiners.geometry import gradient_norms


@dataclass
class DualProj(Combiner):
    """DualProj: the mean gradient, projected on the dual cone {d : <g_i, d> >= 0 for all i}.

    Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017, Equation 11. The weights are at least 1 / K. d
    conflicts with no task. The method is not scale-invariant. A dead task keeps the mean's weight 1 / K.

    Example:
        >>> DualProj().combine(np.array([[1.0, -2.0], [-2.0, 8.0]])).weights
        array([1. , 0.5])
    """

    name: ClassVar[str] = "dualproj"
    dead_tasks: ClassVar[DeadTasks] = "count"

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, non_conflicting=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        norms = gradient_norms(gram)
        weights = project_on_dual_cone(unit_factor(gram), norms / len(gram)) / norms
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))


@dataclass
class UPGrad(Combiner):
    """UPGrad: the mean of the gradients, each projected on the dual cone {d : <g_i, d> >= 0 for all i}.

    Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024, Equation 5. The weights are at least
    1 / K. d conflicts with no task and is linear under scaling of the tasks. The method is not scale-invariant. A dead
    task keeps the mean's weight 1 / K.

    Example:
        >>> UPGrad().combine(np.array([[1.0, -2.0], [-2.0, 8.0]])).weights
        array([1.5  , 0.625])
    """

    name: ClassVar[str] = "upgrad"
    dead_tasks: ClassVar[DeadTasks] = "count"

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, non_conflicting=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        norms = gradient_norms(gram)
        factor = unit_factor(gram)
        # Row i holds the projection of the unit vector e_i. A projection on a cone is positively homogeneous, so the
        # factor ||g_i|| can come afterwards.
        projected = np.stack([project_on_dual_cone(factor, unit) for unit in np.eye(len(gram))])
        weights = (norms / len(gram)) @ projected / norms
        return Combination(weights, Record(residual=worst_conflict(gram, weights)))

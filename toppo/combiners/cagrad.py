"""CAGrad: the direction near the mean gradient that helps the worst-off task most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from toppo.combiners.base import EPS, Claims, Combination, Combiner, DeadTasks, Record, Status, require_at_least_zero
from toppo.combiners.cone import min_norm_point, project_on_dual_cone, unit_factor
from toppo.combiners.geometry import gradient_norms

_STATIONARY = 1e-7
"""Ratio of ||g_w|| to sum_i w_i ||g_i|| that counts as zero.

A Gram holds squares, so lengths are good to sqrt(eps) = 1.5e-8.
"""
_ZERO = 1e-15
"""Ratio of rho to the longest ||g_i|| that counts as zero. The gradients then cancel in their mean."""
_MARGIN = 1e-3
"""How much the bracket of log tau is widened at each end, so that rounding there does not lose the root."""
_GAP_TOLERANCE = 1e-8
"""Largest duality gap of a solution."""


@dataclass
class CAGrad(Combiner):
    """CAGrad: the d that maximises min_i <g_i, d> over ||d - g_0|| <= rho, divided by 1 + c^2 as in its authors' code.

    Liu et al., Conflict-Averse Gradient Descent, NeurIPS 2021, Algorithm 1. g_0 is the mean gradient and rho =
    c ||g_0||. The solution is d = g_0 + (rho / ||g_w||) g_w with g_w = sum_i w_i g_i, where w on the simplex minimises
    <g_w, g_0> + rho ||g_w||.

    Set tau = ||g_w|| / rho. Then g_w + tau g_0 is the shortest convex combination of the g_i + tau g_0. So tau is the
    root of ||g_w(tau)|| = tau rho, and each tau needs one exact active set. Where the tasks are Pareto-stationary and
    the ball reaches the dual cone, every d in both is equally good. The method then returns the d nearest to g_0, as
    DualProj does, with status PARETO_STATIONARY.

    A dead task counts in the mean g_0, but it is never the worst-off task. In the authors' code it can be. If some d in
    the ball helps every live task, the dead task's <g_i, d> = 0 is the least. w then lies on the dead task alone, and d
    is g_0 / (1 + c^2), the mean. Here the live tasks keep their CAGrad direction.

    Weights are non-negative (TOPPO, Theorem C.1). Each is at least 1 / K / (1 + c^2), and a dead task has exactly this
    weight. The method is not scale-invariant.

    Args:
        c: radius of the ball over ||g_0||, >= 0.

    Example:
        >>> CAGrad(c=0.5).combine(np.eye(2)).weights
        array([0.6, 0.6])
    """

    name: ClassVar[str] = "cagrad"
    dead_tasks: ClassVar[DeadTasks] = "count"

    c: float = 0.5

    def __post_init__(self) -> None:
        require_at_least_zero(self.name, c=self.c)

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        K = len(gram)
        norms = gradient_norms(gram)
        weights = np.full(K, 1 / K)
        unit_vectors = unit_factor(gram)
        vectors = unit_vectors * norms
        g_0 = vectors.sum(axis=1) / K
        rho = self.c * float(np.linalg.norm(g_0))
        record = Record()
        if rho > _ZERO * norms.max():
            extra, record = _worst_task_share(vectors, g_0, rho)
            if extra is None:
                mean = norms / K
                extra = (project_on_dual_cone(unit_vectors, mean) - mean) / norms
            weights += extra
        return Combination(weights / (1 + self.c**2), record)

    def _weight_of_dead(self, n_tasks: int) -> float:
        return 1 / n_tasks / (1 + self.c**2)


def _worst_task_share(
    vectors: Float[np.ndarray, "n K"], g_0: Float[np.ndarray, "n"], rho: float
) -> tuple[Float[np.ndarray, "K"] | None, Record]:
    """(rho / ||g_w||) w for gradients in the columns of `vectors`, or None where the ball reaches the dual cone.

    Args:
        vectors: the g_i in coordinates, one per column.
        g_0: the mean of the g_i.
        rho: radius of the ball, > 0.

    Returns:
        The vector, and a record. Its residual is the duality gap <g_w, g_0> + rho ||g_w|| - min_i <g_i, d>, over
        rho max_i ||g_i||.
    """
    lengths = np.linalg.norm(vectors, axis=0)
    longest = float(lengths.max())
    evaluations = 0

    def solve_at(log_tau: float) -> tuple[Float[np.ndarray, "K"], float]:
        nonlocal evaluations
        evaluations += 1
        w = min_norm_point(vectors + math.exp(log_tau) * g_0[:, None])
        return w, float(np.linalg.norm(vectors @ w))

    def log_excess(log_tau: float) -> float:
        length = max(solve_at(log_tau)[1], _ZERO * longest)
        return math.log(length / rho) - log_tau

    # ||g_w|| lies between the shortest vector of the hull and the longest g_i.
    w = min_norm_point(vectors)
    least = max(float(np.linalg.norm(vectors @ w)), _STATIONARY * float(w @ lengths))
    low = math.log(least / rho) - _MARGIN
    high = math.log(longest / rho) + _MARGIN
    if log_excess(low) <= 0:
        return None, Record(iterations=evaluations, status=Status.PARETO_STATIONARY)
    w, length = solve_at(brentq(log_excess, low, high, xtol=1e-15, rtol=4 * EPS))
    share = rho / length * w
    d = g_0 + vectors @ share
    gap = g_0 @ vectors @ w + rho * length - (d @ vectors).min()
    residual = abs(float(gap)) / (rho * longest)
    status = Status.OK if residual <= _GAP_TOLERANCE else Status.NOT_CONVERGED
    return share, Record(residual=residual, iterations=evaluations, status=status)

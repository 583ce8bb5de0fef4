"""CAGrad: within a ball around the mean gradient, the direction that helps the worst-off task most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status
from toppo.combiners.cone import min_norm_point, project_on_dual_cone, unit_factor
from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks

_STATIONARY = 1e-7
"""||g_w|| over sum_i w_i ||g_i|| that is taken for zero: a Gram holds squares, and so lengths to sqrt(eps) = 1.5e-8
only.
"""
_ZERO = 1e-15
"""rho over the longest ||g_i|| that is taken for zero: the mean gradient has cancelled."""
_MARGIN = 1e-3
"""By how much the bracket of log tau is widened, so that rounding at its ends does not lose the root."""
_GAP_TOLERANCE = 1e-8
"""Duality gap of a solution."""


@dataclass
class CAGrad(Combiner):
    """CAGrad (Liu et al., Conflict-Averse Gradient Descent, NeurIPS 2021, Algorithm 1), over 1 + c^2 as in its code.

    With g_0 the mean gradient, d = g_0 + (rho / ||g_w||) g_w, rho = c ||g_0||, where w on the simplex minimises
    <g_w, g_0> + rho ||g_w||: then d maximises min_i <g_i, d> over ||d - g_0|| <= rho. Weights non-negative (Theorem
    C.1), at least 1 / K / (1 + c^2). Not scale-invariant.

    For tau = ||g_w|| / rho, g_w + tau g_0 is the least convex combination of the g_i + tau g_0. So tau is found as the
    root of ||g_w(tau)|| = tau rho, a scalar decreasing function, with an exact active set at each tau. Where the tasks
    are Pareto-stationary and the ball reaches the dual cone, every d of theirs is as good; the one nearest g_0
    (DualProj) is taken and reported.

    Options:
        c: radius of the ball over ||g_0||, >= 0.
    """

    name: ClassVar[str] = "cagrad"

    c: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.c) and self.c >= 0):
            raise ValueError(f"{self.name}: c must be a finite number >= 0, not {self.c!r}")

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        K = len(gram)
        norms = gradient_norms(gram)
        alive = alive_tasks(norms)
        weights = np.full(K, 1 / K)
        if not alive.any():
            return Combination(weights / (1 + self.c**2), Record(status=Status.NO_GRADIENT))
        unit_vectors = unit_factor(gram)[:, alive]
        vectors = unit_vectors * norms[alive]
        g_0 = vectors.sum(axis=1) / K
        rho = self.c * float(np.linalg.norm(g_0))
        record = Record()
        if rho > _ZERO * norms.max():
            extra, record = _worst_task_share(vectors, g_0, rho)
            if extra is None:
                mean = norms[alive] / K
                extra = (project_on_dual_cone(unit_vectors, mean) - mean) / norms[alive]
            weights[alive] += extra
        return Combination(weights / (1 + self.c**2), record)


def _worst_task_share(
    vectors: Float[np.ndarray, "n A"], g_0: Float[np.ndarray, "n"], rho: float
) -> tuple[Float[np.ndarray, "A"] | None, Record]:
    """(rho / ||g_w||) w, for the columns of `vectors` as gradients; None where the ball reaches the dual cone.

    The record's residual is the duality gap <g_w, g_0> + rho ||g_w|| - min_i <g_i, d>, over rho max_i ||g_i||.
    """
    lengths = np.linalg.norm(vectors, axis=0)
    longest = float(lengths.max())
    evaluations = 0

    def solve_at(log_tau: float) -> tuple[Float[np.ndarray, "A"], float]:
        nonlocal evaluations
        evaluations += 1
        w = min_norm_point(vectors + math.exp(log_tau) * g_0[:, None])
        return w, float(np.linalg.norm(vectors @ w))

    def log_excess(log_tau: float) -> float:
        length = max(solve_at(log_tau)[1], _ZERO * longest)
        return math.log(length / rho) - log_tau

    # ||g_w|| lies between the least length in the hull and the longest.
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

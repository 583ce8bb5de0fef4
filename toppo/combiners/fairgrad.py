"""FairGrad: the weights at which every task contributes fairly, G w = w^(-1/alpha), to rounding.

The equation is solved in correlation form, so that neither the tasks' norms nor their spread touch the conditioning.
With n_i = ||g_i|| and R = diag(n)^-1 G diag(n)^-1, set w = u / n. Then u solves

    R u = p(u),   p_i(u) = m_i (u_i / m_i)^(-1/alpha),   m = n^((1-alpha)/(1+alpha)),

which has u = m for orthogonal tasks (Proposition C.1 of the TOPPO paper). It is the stationarity of the strictly convex

    f(u) = 1/2 u'Ru - sum_i P_i(u_i),   P_i' = p_i,

at alpha = 1 the equal-risk-contribution problem 1/2 u'Ru - sum log u_i, a self-concordant function. Newton's step
x = (R + diag(-p'(u)))^-1 (Ru - p) is taken multiplicatively, u <- u exp(-t x/u), which keeps u positive, and u is then
rescaled to the minimum of f along its ray, which costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg.lapack import dposv

from toppo.combiners.base import EPS, Claims, Combination, Combinations, Combiner, Record, Status, require_positive
from toppo.combiners.geometry import cosines, gradient_norms
from toppo.combiners.gram import alive_tasks

MAX_ITERATIONS = 20
MAX_ITERATIONS_GENERAL = 300
"""For alpha != 1, where log w can have to travel far, at LONGEST_STEP a time."""
STEP_TOLERANCE = 1e-7
"""Relative step after which Newton stops at alpha = 1: the error left is of the order of its square, 1e-14."""
NEAR = 0.1
"""Relative step below which a full Newton step needs no line search: f is a parabola there, to a few percent."""
LONGEST_STEP = 10.0
"""Largest ||Delta log u|| of one step: the exponential of a wild first step would overflow."""
SHORTEST_STEP = 1e-10
"""Fraction of Newton's step below which no decrease of f is to be had above its rounding."""
ARMIJO = 0.2
"""Share of the predicted decrease of f that a step has to bring: a much smaller one lets it zigzag across a valley."""
RESIDUAL_TOLERANCE = 1e-11
"""Residual of a solution, unless rounding forbids it."""
CURVATURE_LIMIT = 1e-6
"""Largest eps ||u||^2 at alpha = 1, largest floor at others, of a solution.

Beyond it u has grown along a direction in which R has no curvature left above its rounding.
"""
BLOCK = 64
"""Grams that `solve_many` holds at once: their matrices stay in the cache."""
RIDGE = 1e-5
"""Added to the diagonal of R where no finite solution exists: ||d|| goes to 0 smoothly as tasks turn anti-parallel."""


def kkt_residual(
    gram: Float[np.ndarray, "*T K K"], weights: Float[np.ndarray, "*T K"], alpha: float = 1.0
) -> Float[np.ndarray, "*T"]:
    """max_i |w_i^(1/alpha) (G w)_i - 1| over the tasks with a gradient: the scale-free residual of G w = w^(-1/alpha).

    Unlike ||G w - w^(-1/alpha)|| it does not depend on the gradients' units. 0 where every task is dead.

    Args:
        gram: G, shape (..., K, K).
        weights: w, shape (..., K), positive where G_ii > 0.
        alpha: fairness exponent.
    """
    error = np.abs(_products(gram, weights, alpha) - 1)
    return np.asarray(error.max(axis=-1, initial=0.0, where=alive_tasks(gradient_norms(gram))))


def _products(
    gram: Float[np.ndarray, "*T K K"], weights: Float[np.ndarray, "*T K"], alpha: float
) -> Float[np.ndarray, "*T K"]:
    """w_i^(1/alpha) (G w)_i, which a solution makes 1."""
    powers = weights if alpha == 1 else weights ** (1 / alpha)
    products: np.ndarray = np.matmul(gram, weights[..., None])[..., 0] * powers
    return products


def solve(gram: Float[np.ndarray, "K K"], alpha: float = 1.0) -> Combination:
    """The positive w with G w = w^(-1/alpha) (TOPPO Section 4.3; Ban and Ji 2024, Equation 4).

    Args:
        gram: a Gram that `check_gram` has passed, shape (K, K).
        alpha: fairness exponent, > 0; 1 is proportional fairness.

    Returns:
        w, shape (K,), at alpha = 1 in 1 / the unit of the gradients; 0 for dead tasks, which leave the problem. The
        record's residual is `kkt_residual`. Its floor is what rounding the entries of R alone can do to that residual,
        eps max_i (|R| u)_i / p_i; for two nearly anti-parallel tasks at alpha = 1 it is 2 eps max(u)^2. Where no finite
        solution exists the status is PARETO_STATIONARY and w solves the problem with record.ridge on the diagonal of R;
        the residual is still that of G itself.
    """
    norms = gradient_norms(gram)
    alive = alive_tasks(norms)
    weights = np.zeros(len(gram))
    if not alive.any():
        return Combination(weights, Record(status=Status.NO_GRADIENT))
    # Far from alpha = 1 the weights can leave fp64's range: what overflows fails its test, and is NOT_CONVERGED.
    with np.errstate(all="ignore"):
        if alive.all():
            return _solve_alive(gram, norms, alpha)
        part = _solve_alive(gram[np.ix_(alive, alive)], norms[alive], alpha)
    weights[alive] = part.weights
    return Combination(weights, part.record)


def _solve_alive(gram: Float[np.ndarray, "K K"], norms: Float[np.ndarray, "K"], alpha: float) -> Combination:
    """`solve` for tasks that all have a gradient."""
    R = cosines(gram)
    m, unit = _orthogonal_solution(norms, alpha)
    u, iterations, solved = _newton(R, m, alpha)
    ridge = 0.0
    if not _has_solution(R, u, m, alpha, solved):
        # One ridge is enough for a Gram rounded to fp32 or better; for a matrix that is no Gram it has to dominate.
        solved = False
        while not solved and ridge < len(R):
            ridge = 10 * ridge or RIDGE
            u, more, solved = _newton(R + ridge * np.eye(len(R)), m, alpha)
            iterations += more
    weights = unit * u / norms
    residual = _largest(_products(gram, weights, alpha) - 1)
    floor = _floor(R, u, m, alpha)
    if ridge:
        status = Status.PARETO_STATIONARY
    elif residual <= RESIDUAL_TOLERANCE:
        status = Status.OK
    else:
        status = Status.AT_FLOOR if solved and residual <= len(R) * floor else Status.NOT_CONVERGED
    return Combination(weights, Record(residual, iterations, status, ridge, floor))


def _has_solution(
    R: Float[np.ndarray, "K K"], u: Float[np.ndarray, "K"], m: Float[np.ndarray, "K"], alpha: float, solved: bool
) -> bool:
    """Whether R u = p(u) has a positive solution, given how Newton fared.

    That takes the same of R at every alpha, that no v >= 0 has R v = 0. Where another alpha leaves it in doubt, by
    failing or by a solution lost in rounding, alpha = 1 decides, where Newton certifies its answer.
    """
    if alpha == 1 or (solved and _floor(R, u, m, alpha) <= CURVATURE_LIMIT):
        return solved
    return _newton(R, np.ones_like(m), 1.0)[2]


def _orthogonal_solution(
    norms: Float[np.ndarray, "*T K"], alpha: float
) -> tuple[Float[np.ndarray, "*T K"], Float[np.ndarray, "..."]]:
    """m over its maximum, and that maximum.

    Where u solves the equation of m, u / unit solves that of m / unit, in which nothing overflows.
    """
    if alpha == 1:
        return np.ones_like(norms), np.ones(())
    log_m = (1 - alpha) / (1 + alpha) * np.log(norms)
    log_unit = log_m.max(axis=-1, keepdims=True)
    return np.exp(log_m - log_unit), np.exp(log_unit)


def _fair_share(u: Float[np.ndarray, "*T K"], m: Float[np.ndarray, "*T K"], alpha: float) -> Float[np.ndarray, "*T K"]:
    """p(u) = m (u / m)^(-1/alpha), what R u has to be."""
    if alpha == 1:  # m = 1
        return 1 / u
    share: np.ndarray = m * (u / m) ** (-1 / alpha)
    return share


def _floor(R: Float[np.ndarray, "K K"], u: Float[np.ndarray, "K"], m: Float[np.ndarray, "K"], alpha: float) -> float:
    """eps max_i (|R| u)_i / p_i: the relative error of (R u)_i = p_i when each entry of R is rounded once."""
    return float(EPS * (np.abs(R).dot(u) / _fair_share(u, m, alpha)).max())


def _newton(
    R: Float[np.ndarray, "K K"], m: Float[np.ndarray, "K"], alpha: float
) -> tuple[Float[np.ndarray, "K"], int, bool]:
    """Minimise f from u = m: the last u, the iterations taken, and whether u is a minimiser to rounding.

    False where f has no minimiser above its rounding (at alpha = 1), or where the iterations did not suffice.
    """
    K = len(R)
    general = alpha != 1
    # Only at alpha = 1 is the residual of the order of the step: elsewhere go on until the steps are rounding.
    tolerance = 0.0 if general else STEP_TOLERANCE
    u, Ru, p, solvable = _to_ray_minimum(R, m, m, alpha)
    if not solvable:
        return u, 0, False
    last_step = np.inf
    limit = MAX_ITERATIONS_GENERAL if general else MAX_ITERATIONS
    for iteration in range(1, limit + 1):
        H = R.copy()
        H.reshape(-1)[:: K + 1] += p / (alpha * u) if general else p * p
        gradient = Ru - p
        if not general and EPS * u.dot(u) > CURVATURE_LIMIT:
            return u, iteration, False
        # H is symmetric: its transpose is the column-major array LAPACK wants, without a copy.
        _, x, failed = dposv(H.T, gradient, overwrite_a=True)
        if failed:
            return u, iteration, False
        delta = x / u
        step = math.sqrt(delta.dot(delta))
        if step <= tolerance or (step <= 1e-3 and 2 * step > last_step):
            # Steps below 1e-3 shrink quadratically, until what is left of them is rounding. They also certify that f
            # has a minimiser: the Newton decrement is at most sqrt(K + 1) of them, below 1, and f self-concordant.
            return u - x, iteration, True
        last_step = step
        t = min(1.0, LONGEST_STEP / step)
        while True:
            trial, trial_Ru, trial_p, solvable = _to_ray_minimum(R, u * np.exp((-t) * delta), m, alpha)
            if not solvable:
                return u, iteration, False
            if step <= NEAR:
                break
            value = _objective(u, p, alpha)
            allowed = value - ARMIJO * t * float(gradient.dot(x)) + 4 * K * EPS * abs(value)
            if _objective(trial, trial_p, alpha) <= allowed:
                break
            t /= 2
            if t < SHORTEST_STEP:
                return u, iteration, False
        u, Ru, p = trial, trial_Ru, trial_p
    return u, limit, False


def _to_ray_minimum(
    R: Float[np.ndarray, "K K"], u: Float[np.ndarray, "K"], m: Float[np.ndarray, "K"], alpha: float
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"], Float[np.ndarray, "K"], bool]:
    """The multiple of u at which f is least, where u'Ru = u'p; its R u and p; False if there is none, u'Ru <= 0."""
    Ru = R.dot(u)
    p = _fair_share(u, m, alpha)
    energy = u.dot(Ru)
    if not energy > 0:
        return u, Ru, p, False
    if alpha == 1:
        scale = math.sqrt(len(u) / energy)
        return scale * u, scale * Ru, p / scale, True
    scale = (u.dot(p) / energy) ** (alpha / (1 + alpha))
    return scale * u, scale * Ru, scale ** (-1 / alpha) * p, True


def _objective(u: Float[np.ndarray, "K"], p: Float[np.ndarray, "K"], alpha: float) -> float:
    """f(u) less a constant, for u at the minimum of its ray, where u'Ru = u'p."""
    if alpha == 1:
        return -float(np.log(u).sum())
    return float(u.dot(p)) * (0.5 - alpha / (alpha - 1))


def solve_many(grams: Float[np.ndarray, "T K K"], alpha: float = 1.0) -> Combinations:
    """`solve` for T Grams that `check_grams` has passed, at alpha = 1 many at a time.

    They share `solve`'s full Newton steps; a Gram for which those do not suffice (dead tasks, no solution, a step that
    needs a line search) goes through `solve` itself.
    """
    out = Combinations.zeros(*grams.shape[:2])
    left = np.ones(len(grams), dtype=bool)
    if alpha == 1:
        for start in range(0, len(grams), BLOCK):
            block = slice(start, start + BLOCK)
            out.weights[block], out.iterations[block], out.residual[block], out.floor[block] = _solve_block(
                grams[block]
            )
        left = ~(out.residual <= RESIDUAL_TOLERANCE)
    for t in np.flatnonzero(left).tolist():
        out.put(t, solve(grams[t], alpha))
    return out


def _solve_block(
    grams: Float[np.ndarray, "T K K"],
) -> tuple[Float[np.ndarray, "T K"], Int[np.ndarray, "T"], Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Weights, iterations, residual and floor at alpha = 1 by full steps; NaN or a large residual where they fail."""
    T, K, _ = grams.shape
    R = cosines(grams)
    u = np.ones((T, K))
    iterations = np.ones(T, dtype=np.int64)
    with np.errstate(all="ignore"):
        for _ in range(MAX_ITERATIONS):
            Ru = np.matmul(R, u[..., None])[..., 0]
            scale = np.sqrt(K / np.einsum("ti,ti->t", u, Ru))[:, None]
            u, p = scale * u, 1 / (scale * u)
            H = R.copy()
            H.reshape(T, K * K)[:, :: K + 1] += p * p
            try:
                x = np.linalg.solve(H, (scale * Ru - p)[..., None])[..., 0]
            except np.linalg.LinAlgError:
                break
            delta = x * p
            moving = np.linalg.norm(delta, axis=1) > STEP_TOLERANCE
            u = np.where(moving[:, None], u * np.exp(-delta), u - x)
            if not moving.any():
                break
            iterations += moving
        weights = u / gradient_norms(grams)
        residual = np.abs(_products(grams, weights, 1.0) - 1).max(axis=1)
        floor = EPS * (np.matmul(np.abs(R), u[..., None])[..., 0] * u).max(axis=1)
    return weights, iterations, residual, floor


def _largest(x: Float[np.ndarray, "K"]) -> float:
    """max_i |x_i|."""
    return float(max(x.max(), -x.min()))


@dataclass
class FairGrad(Combiner):
    """FairGrad, G w = w^(-1/alpha) (Ban and Ji, Fair Resource Allocation in MTL, ICML 2024; TOPPO Section 4.3).

    Weights non-negative, zero for dead tasks alone. Non-conflicting: (G w)_i = w_i^(-1/alpha) > 0. At alpha = 1, and
    only there, scale-invariant with ||d||^2 = K (Theorem 1). Solved to rounding by `solve`; `fairgrad-paper` is
    Algorithm C.2.

    Options:
        alpha: fairness exponent, > 0.
    """

    name: ClassVar[str] = "fairgrad"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.name, alpha=self.alpha)

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, non_conflicting=True, scale_invariant=self.alpha == 1)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        return solve(gram, self.alpha)

    def _solve_many(
        self,
        grams: Float[np.ndarray, "T K K"],
        losses: Float[np.ndarray, "T K"] | None,
        orders: Int[np.ndarray, "T ..."] | None,
    ) -> Combinations:
        return solve_many(grams, self.alpha)

"""FairGrad: the weights at which every task contributes fairly, G w = w^(-1/alpha), accurate to rounding.

The equation is solved in correlation form, so its conditioning depends neither on the norms of the gradients nor on
their spread. With n_i = ||g_i|| and R = diag(n)^-1 G diag(n)^-1, set w = u / n. Then u solves

    R u = p(u),   p_i(u) = m_i (u_i / m_i)^(-1/alpha),   m = n^((1-alpha)/(1+alpha)),

For orthogonal gradients u = m (Proposition C.1 of the TOPPO paper). A solution is where the gradient of the strictly
convex function

    f(u) = 1/2 u'Ru - sum_i P_i(u_i),   P_i' = p_i,

is zero. At alpha = 1, f(u) = 1/2 u'Ru - sum log u_i, the equal-risk-contribution problem, which is self-concordant.
Newton's step is x = (R + diag(-p'(u)))^-1 (Ru - p). It is taken as a factor, u <- u exp(-t x/u), which keeps u
positive. Then u is rescaled to the minimum of f along its ray, which costs almost nothing.
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
"""Iteration limit at alpha != 1. There log w may have to move far, and moves by at most LONGEST_STEP per iteration."""
STEP_TOLERANCE = 1e-7
"""Relative step after which Newton stops at alpha = 1. The remaining error is of the order of its square, 1e-14."""
NEAR = 0.1
"""Relative step below which a full Newton step needs no line search. So close, f is a parabola to a few percent."""
LONGEST_STEP = 10.0
"""Largest ||Delta log u|| of one step. The exponential of a very large first step would overflow."""
SHORTEST_STEP = 1e-10
"""Fraction of Newton's step below which f cannot fall by more than its own rounding."""
ARMIJO = 0.2
"""Share of the predicted decrease of f that a step must bring. With a much smaller share, steps zigzag in a valley."""
RESIDUAL_TOLERANCE = 1e-11
"""Largest residual of a solution, unless rounding makes the residual larger."""
CURVATURE_LIMIT = 1e-6
"""Largest eps ||u||^2 of a solution at alpha = 1, and largest floor at another alpha.

Beyond this limit, u has grown along a direction in which the curvature of R is no larger than its rounding.
"""
RESOLVED = 0.1
"""Largest floor times K at which a solution counts as known. Beyond it, its residual is rounding alone."""
BLOCK = 64
"""Grams that `solve_many` solves at once. Their matrices stay in the cache."""
RIDGE = 1e-5
"""Added to the diagonal of R where no finite solution exists. It lets ||d|| go to 0 smoothly near such gradients."""


def kkt_residual(
    gram: Float[np.ndarray, "*T K K"], weights: Float[np.ndarray, "*T K"], alpha: float = 1.0
) -> Float[np.ndarray, "*T"]:
    """Residual of FairGrad's equation G w = w^(-1/alpha), max_i |w_i^(1/alpha) (G w)_i - 1| over live tasks.

    Unlike ||G w - w^(-1/alpha)||, it does not depend on the unit of the gradients.

    Args:
        gram: G = J J', shape (..., K, K).
        weights: w, shape (..., K), positive where G_ii > 0.
        alpha: fairness exponent, > 0.

    Returns:
        The residual, shape (...); 0 where every task is dead.
    """
    error = np.abs(_products(gram, weights, alpha) - 1)
    return np.asarray(error.max(axis=-1, initial=0.0, where=alive_tasks(gradient_norms(gram))))


def _products(
    gram: Float[np.ndarray, "*T K K"], weights: Float[np.ndarray, "*T K"], alpha: float
) -> Float[np.ndarray, "*T K"]:
    """w_i^(1/alpha) (G w)_i; all 1 for a solution."""
    powers = weights if alpha == 1 else weights ** (1 / alpha)
    products: np.ndarray = np.matmul(gram, weights[..., None])[..., 0] * powers
    return products


def solve(gram: Float[np.ndarray, "K K"], alpha: float = 1.0) -> Combination:
    """The positive w with G w = w^(-1/alpha) (TOPPO, Section 4.3; Ban and Ji, 2024, Equation 4).

    Args:
        gram: G of live tasks, shape (K, K), as `check_gram` returns it. `FairGrad.combine` takes dead tasks too.
        alpha: fairness exponent, > 0; 1 is proportional fairness.

    Returns:
        w, shape (K,); at alpha = 1 its unit is 1 / the unit of the gradients. The record's residual is `kkt_residual`.
        Its floor is the residual that rounding the entries of R can cause by itself, eps max_i (|R| u)_i / p_i. For two
        nearly anti-parallel gradients at alpha = 1 the floor is 2 eps max(u)^2. Where no finite solution exists, the
        status is PARETO_STATIONARY and w solves the problem with record.ridge on the diagonal of R. The residual is
        then still that of G. Where K times the floor is above `RESOLVED`, the status is UNRESOLVED. At alpha far below
        1 this is common under a wide spread: the parts p_i = m_i (u_i / m_i)^(-1/alpha) then differ by more than the 16
        digits of float64.
    """
    # Far from alpha = 1 the weights can leave float64's range. A test then fails, and the status is NOT_CONVERGED.
    with np.errstate(all="ignore"):
        return _solve(gram, gradient_norms(gram), alpha)


def _solve(gram: Float[np.ndarray, "K K"], norms: Float[np.ndarray, "K"], alpha: float) -> Combination:
    """The result of `solve`, given the norms of the gradients."""
    R = cosines(gram)
    m, unit = _orthogonal_solution(norms, alpha)
    u, iterations, solved = _newton(R, m, alpha)
    ridge = 0.0
    if not _has_solution(R, u, m, alpha, solved):
        # The first ridge is enough for a Gram rounded to float32 or better. A matrix that is not a Gram needs more.
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
    elif not (solved and residual <= len(R) * floor):
        status = Status.NOT_CONVERGED
    else:
        status = Status.AT_FLOOR if len(R) * floor <= RESOLVED else Status.UNRESOLVED
    return Combination(weights, Record(residual, iterations, status, ridge, floor))


def _has_solution(
    R: Float[np.ndarray, "K K"], u: Float[np.ndarray, "K"], m: Float[np.ndarray, "K"], alpha: float, solved: bool
) -> bool:
    """Whether R u = p(u) has a positive solution, given the result of Newton.

    A solution exists when R v = 0 for no v >= 0 other than 0. This condition is the same at every alpha. At alpha = 1
    Newton certifies its answer. At another alpha Newton can fail, or its solution can be lost in rounding. Then its
    answer at alpha = 1 decides.
    """
    if alpha == 1 or (solved and _floor(R, u, m, alpha) <= CURVATURE_LIMIT):
        return solved
    return _newton(R, np.ones_like(m), 1.0)[2]


def _orthogonal_solution(
    norms: Float[np.ndarray, "*T K"], alpha: float
) -> tuple[Float[np.ndarray, "*T K"], Float[np.ndarray, "..."]]:
    """m divided by its largest element, and this element, called the unit.

    If u solves the equation with m, then u / unit solves the equation with m / unit, in which nothing overflows.
    """
    if alpha == 1:
        return np.ones_like(norms), np.ones(())
    log_m = (1 - alpha) / (1 + alpha) * np.log(norms)
    log_unit = log_m.max(axis=-1, keepdims=True)
    return np.exp(log_m - log_unit), np.exp(log_unit)


def _fair_share(u: Float[np.ndarray, "*T K"], m: Float[np.ndarray, "*T K"], alpha: float) -> Float[np.ndarray, "*T K"]:
    """p(u) = m (u / m)^(-1/alpha), which R u must equal."""
    if alpha == 1:  # m = 1
        return 1 / u
    share: np.ndarray = m * (u / m) ** (-1 / alpha)
    return share


def _floor(R: Float[np.ndarray, "K K"], u: Float[np.ndarray, "K"], m: Float[np.ndarray, "K"], alpha: float) -> float:
    """eps max_i (|R| u)_i / p_i, the relative error of (R u)_i = p_i when each entry of R is rounded once."""
    return float(EPS * (np.abs(R).dot(u) / _fair_share(u, m, alpha)).max())


def _newton(
    R: Float[np.ndarray, "K K"], m: Float[np.ndarray, "K"], alpha: float
) -> tuple[Float[np.ndarray, "K"], int, bool]:
    """The last u of Newton's method from u = m, its number of iterations, and whether u minimises f up to rounding.

    The third value is False at alpha = 1 if f has no minimiser that can be told from rounding. It is False at any alpha
    if Newton did not end.
    """
    K = len(R)
    general = alpha != 1
    # At alpha = 1 the residual is of the order of the step. At another alpha it can be larger, so Newton goes on until
    # its steps are as small as rounding.
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
        # H is symmetric. Its transpose is the column-major array that LAPACK wants, without a copy.
        _, x, failed = dposv(H.T, gradient, overwrite_a=True)
        if failed:
            return u, iteration, False
        delta = x / u
        step = math.sqrt(delta.dot(delta))
        if step <= tolerance or (step <= 1e-3 and 2 * step > last_step):
            # Steps below 1e-3 shrink quadratically, until they are as small as rounding. They also certify that f has a
            # minimiser. The Newton decrement is at most sqrt(K + 1) times the step, so it is below 1. For a
            # self-concordant f this is enough.
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
    """The multiple of u that minimises f, with its R u and p, and whether it exists, which needs u'Ru > 0.

    At this minimum u'Ru = u'p.
    """
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
    """f(u) up to a constant, for a u from `_to_ray_minimum`, where u'Ru = u'p."""
    if alpha == 1:
        return -float(np.log(u).sum())
    return float(u.dot(p)) * (0.5 - alpha / (alpha - 1))


def _solve_block(
    grams: Float[np.ndarray, "T K K"],
) -> tuple[Float[np.ndarray, "T K"], Int[np.ndarray, "T"], Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Weights, iterations, residual and floor at alpha = 1, by full steps.

    Where full steps fail, the residual is NaN or large.
    """
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
    """max_i |x_i|, faster than with np.abs for a short x."""
    return float(max(x.max(), -x.min()))


@dataclass
class FairGrad(Combiner):
    """FairGrad: the positive weights with G w = w^(-1/alpha), accurate to rounding.

    Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024; TOPPO, Section 4.3. d conflicts with no
    task, because (G w)_i = w_i^(-1/alpha) > 0. At alpha = 1, and only there, d is scale-invariant with ||d||^2 = K
    (TOPPO, Theorem 1). `fairgrad-paper` is the paper's own solver, Algorithm C.2.

    Far from alpha = 1, float64 cannot hold the solution of every Gram. The status is then UNRESOLVED.

    Weights are non-negative. Only a dead task gets weight 0.

    Args:
        alpha: fairness exponent, > 0.

    Example:
        >>> FairGrad(alpha=1).combine(np.diag([4.0, 16.0])).weights
        array([0.5 , 0.25])
    """

    name: ClassVar[str] = "fairgrad"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.name, alpha=self.alpha)

    @property
    def claims(self) -> Claims:
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
        out = Combinations.zeros(*grams.shape[:2])
        left = np.ones(len(grams), dtype=bool)
        if self.alpha == 1:
            for start in range(0, len(grams), BLOCK):
                block = slice(start, start + BLOCK)
                out.weights[block], out.iterations[block], out.residual[block], out.floor[block] = _solve_block(
                    grams[block]
                )
            left = ~(out.residual <= RESIDUAL_TOLERANCE)
        # Dead tasks, no solution, or a step that needs a line search: these Grams are solved one at a time.
        for t in np.flatnonzero(left).tolist():
            out.put(t, self._combine_live(grams[t], None, None))
        return out

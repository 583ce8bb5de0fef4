"""FairGrad by the TOPPO paper's own solver, Algorithm C.2: to match the paper's runs, and as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record, Status, require_positive
from toppo.combiners.fairgrad import kkt_residual

ETA = 1e-2
Y_MAX = 50.0
MAX_ITERATIONS = 50
BACKTRACKS = 30
ARMIJO = 1e-4
EPSILON = 1e-45
"""The paper's eps. The paper gives no value for it. With this value a dead task starts at y_max, as the paper says."""


def absolute_residual(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"], alpha: float = 1.0) -> float:
    """The paper's residual ||G w - w^(-1/alpha)|| (Table C.1 of the TOPPO paper).

    It depends on the units: a task with a short gradient hardly counts. Below eta = 1e-2 the weight of such a task can
    be anything. `kkt_residual` has no unit.

    Args:
        gram: G = J J'.
        weights: w, positive.
        alpha: fairness exponent, > 0.

    Returns:
        The norm, at alpha = 1 in the unit of the gradients.
    """
    with np.errstate(over="ignore", divide="ignore"):
        return float(np.linalg.norm(gram @ weights - weights ** (-1 / alpha)))


def diagonal_start(gram: Float[np.ndarray, "K K"], alpha: float) -> Float[np.ndarray, "K"]:
    """The warm start log w, w_i = G_ii^(-alpha/(alpha+1)) (Proposition C.1). It is exact for a diagonal Gram.

    Args:
        gram: G = J J'.
        alpha: fairness exponent, > 0.
    """
    log_w: np.ndarray = -alpha / (alpha + 1) * np.log(np.maximum(np.diagonal(gram), EPSILON))
    return log_w


def solve_paper(
    gram: Float[np.ndarray, "K K"],
    alpha: float = 1.0,
    *,
    start: Float[np.ndarray, "K"] | None = None,
    eta: float = ETA,
    y_max: float = Y_MAX,
    max_iterations: int = MAX_ITERATIONS,
) -> Combination:
    """The weights of Algorithm C.2: damped Newton on F(y) = G exp(y) - exp(-y/alpha), least squares, or 1 / K.

    The code follows the algorithm line by line. Each tier is tried where the one before it fails.

    Args:
        gram: G, shape (K, K), as `check_gram` returns it.
        alpha: fairness exponent, > 0.
        start: log w to start from; `diagonal_start` if None. The paper's cold start is -log K.
        eta: largest accepted norm of F, in the unit of the gradients.
        y_max: cap on y = log w.
        max_iterations: most steps of Newton.

    Returns:
        w, shape (K,), positive. The status says which tier answered: OK, LEAST_SQUARES or UNIFORM. The solver stops by
        the absolute residual, and the record holds `kkt_residual`, which has no unit.
    """

    def kkt(y: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        """F of Equation C.3."""
        value: np.ndarray = gram @ np.exp(y) - np.exp(-y / alpha)
        return value

    def kkt_of_weights(w: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        value: np.ndarray = gram @ w - w ** (-1 / alpha)
        return value

    y = np.clip(diagonal_start(gram, alpha) if start is None else start, -y_max, y_max)
    iteration = 0
    # Far from the solution exp overflows. The comparisons below then fail, and the step is halved.
    with np.errstate(over="ignore", invalid="ignore"):
        for iteration in range(max_iterations):
            value = kkt(y)
            norm = np.linalg.norm(value)
            if norm <= eta:
                return _record(gram, np.exp(y), alpha, iteration, Status.OK)
            F_prime = gram * np.exp(y) + np.diag(np.exp(-y / alpha)) / alpha
            try:
                step = np.linalg.solve(F_prime, -value)
            except np.linalg.LinAlgError:
                break
            trials = (2.0**-k for k in range(BACKTRACKS))
            accepted = next(
                (
                    trial
                    for t in trials
                    if np.linalg.norm(kkt(trial := np.minimum(y + t * step, y_max))) < (1 - ARMIJO * t) * norm
                ),
                None,
            )
            if accepted is None:
                break
            y = accepted
        try:
            fit = least_squares(kkt_of_weights, np.maximum(np.exp(y), EPSILON), bounds=(EPSILON, np.inf))
        except ValueError:  # the residual at the start is not finite
            return _record(gram, np.full(len(gram), 1 / len(gram)), alpha, iteration, Status.UNIFORM)
        if fit.success and np.isfinite(fit.x).all():
            return _record(gram, fit.x, alpha, iteration, Status.LEAST_SQUARES)
        return _record(gram, np.full(len(gram), 1 / len(gram)), alpha, iteration, Status.UNIFORM)


def _record(
    gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"], alpha: float, iterations: int, status: Status
) -> Combination:
    return Combination(weights, Record(float(kkt_residual(gram, weights, alpha)), iterations, status))


@dataclass
class FairGradPaper(Combiner):
    """FairGrad as Algorithm C.2 of the TOPPO paper solves it, with its tiers and its tolerance (Section C.5).

    It stops at an absolute residual of eta = 1e-2. It solves G w = w^(-1/alpha) to this accuracy only. So its scale
    invariance at alpha = 1 is also no better than this. `Record.residual` says how accurate the weights are. Prefer
    `fairgrad`.

    All weights are positive. Dead tasks have positive weights too, and start at the cap `y_max`.

    Args:
        alpha: fairness exponent, > 0.
        eta: residual ||G w - w^(-1/alpha)|| at which Newton stops, > 0.
        y_max: cap on log w, > 0.
        max_iterations: most steps of Newton before tier 2, >= 1.

    Example:
        >>> FairGradPaper().combine(np.diag([4.0, 16.0])).weights
        array([0.5 , 0.25])
    """

    name: ClassVar[str] = "fairgrad-paper"
    dead_tasks: ClassVar[DeadTasks] = "keep"

    alpha: float = 1.0
    eta: float = ETA
    y_max: float = Y_MAX
    max_iterations: int = MAX_ITERATIONS

    def __post_init__(self) -> None:
        require_positive(
            self.name, alpha=self.alpha, eta=self.eta, y_max=self.y_max, max_iterations=self.max_iterations
        )

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        return solve_paper(gram, self.alpha, eta=self.eta, y_max=self.y_max, max_iterations=self.max_iterations)

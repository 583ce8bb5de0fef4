"""FairGrad by the TOPPO paper's own solver, Algorithm C.2: for fidelity to its runs, and as a baseline for
`fairgrad`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares

from toppo.combiners.base import Claims, Combination, Combiner, Record, Status, require_positive
from toppo.combiners.fairgrad import kkt_residual

ETA = 1e-2
Y_MAX = 50.0
MAX_ITERATIONS = 50
BACKTRACKS = 30
ARMIJO = 1e-4
EPSILON = 1e-45
"""The paper's eps, whose value it does not give: small enough for a dead task to start at y_max, which its text asks
for."""


def absolute_residual(gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"], alpha: float = 1.0) -> float:
    """||G w - w^(-1/alpha)||, the paper's residual (Table C.1), in the unit of the gradients at alpha = 1.

    Not scale-free: a task whose gradient is short hardly enters it, so that below eta = 1e-2 its weight can be
    anything.
    """
    with np.errstate(over="ignore", divide="ignore"):
        return float(np.linalg.norm(gram @ weights - weights ** (-1 / alpha)))


def diagonal_start(gram: Float[np.ndarray, "K K"], alpha: float) -> Float[np.ndarray, "K"]:
    """log w of Proposition C.1, w_i = G_ii^(-alpha/(alpha+1)), exact for a diagonal Gram: the warm start."""
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
    """Algorithm C.2, line by line: damped Newton on F(y) = G exp(y) - exp(-y/alpha), then least squares, then 1 / K.

    Args:
        gram: a Gram that `check_gram` has passed, shape (K, K).
        alpha: fairness exponent, > 0.
        start: log w to start from; `diagonal_start` where None. The paper's cold start is -log K.
        eta: the norm of F accepted, in the unit of the gradients.
        y_max: cap on y = log w.
        max_iterations: of Newton.

    Returns:
        w, shape (K,), positive. The status is the tier that answered: OK, LEAST_SQUARES or UNIFORM. The record's
        residual is `kkt_residual`, scale-free, whatever the absolute one that stopped the solver.
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
    # Far from the solution exp overflows; the comparisons below then fail, and the step is halved.
    with np.errstate(over="ignore", invalid="ignore"):
        for iteration in range(max_iterations):
            value = kkt(y)
            norm = np.linalg.norm(value)
            if norm <= eta:
                return _record(gram, np.exp(y), alpha, iteration, Status.OK)
            J = gram * np.exp(y) + np.diag(np.exp(-y / alpha)) / alpha
            try:
                step = np.linalg.solve(J, -value)
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
    """FairGrad solved by Algorithm C.2 of the TOPPO paper, tiers and tolerance included (Section C.5).

    Weights positive, also those of dead tasks. It stops at an absolute residual of eta = 1e-2, so its weights are
    scale-invariant, and its products w_i (G w)_i right, only as far as that goes; record.residual says how far. Prefer
    `fairgrad`.

    Options:
        alpha: fairness exponent, > 0.
        eta: residual target ||G w - w^(-1/alpha)||.
        y_max: cap on log w.
        max_iterations: of Newton, before tier 2.
    """

    name: ClassVar[str] = "fairgrad-paper"

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
        """See `Claims`."""
        return Claims(nonnegative=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        return solve_paper(gram, self.alpha, eta=self.eta, y_max=self.y_max, max_iterations=self.max_iterations)

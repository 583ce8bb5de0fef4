"""PCGrad: projects each gradient off the gradients that it conflicts with. This is exact on the Gram alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record
from toppo.combiners.errors import CombinerError


def draw_row_orders(rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
    """A random order of the other tasks for each task, int64, shape (K, K - 1). Row i holds every j != i once."""
    others = np.tile(np.arange(n_tasks - 1), (n_tasks, 1))
    others += others >= np.arange(n_tasks)[:, None]
    return rng.permuted(others, axis=1)


def draw_shared_order(rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
    """One random order of all tasks, int64, shape (K, K - 1). Row i is this order without task i."""
    sequence = rng.permutation(n_tasks)
    return np.stack([sequence[sequence != i] for i in range(n_tasks)])


def check_row_orders(order: Int[np.ndarray, "K K-1"], n_tasks: int, method: str) -> None:
    """Reject an order whose row i is not a permutation of the tasks j != i.

    Args:
        order: the order that the caller gave.
        n_tasks: K.
        method: the combiner's name, for messages.

    Raises:
        CombinerError: the order is wrong. The message names the method, and the wrong shape or row.
    """
    if order.shape != (n_tasks, n_tasks - 1):
        raise CombinerError(
            f"{method}: the order of {n_tasks} tasks must have shape ({n_tasks}, {n_tasks - 1}), not {order.shape}"
        )
    with_self = np.concatenate([order, np.arange(n_tasks)[:, None]], axis=1)
    with_self.sort(axis=1)
    wrong = (with_self != np.arange(n_tasks)).any(axis=1)
    if wrong.any():
        raise CombinerError(f"{method}: row {wrong.argmax()} of the order must hold every other task exactly once")


def project_conflicts(gram: Float[np.ndarray, "K K"], order: Int[np.ndarray, "K K-1"]) -> Float[np.ndarray, "K K"]:
    """Coefficients C of the projected gradients, g_i^PC = sum_j C_ij g_j (Yu et al., 2020, Algorithm 1).

    Task i meets the other tasks in the order of row i. Where its projected gradient so far conflicts with the original
    g_j, the conflicting part is projected out. C_ij then grows by max(0, -<g_i^PC, g_j>) / ||g_j||^2. The code keeps
    the products V_ij = <g_i^PC, g_j> beside C, so it needs only G. The rows do not depend on each other.

    Args:
        gram: G, shape (K, K).
        order: the tasks that each row meets, shape (K, K - 1).

    Returns:
        C, shape (K, K), non-negative with C_ii = 1. Nothing is projected off a dead task (G_jj = 0).
    """
    K = len(gram)
    C = np.eye(K)
    V = gram.copy()
    squares = np.diagonal(gram)
    inverse_squares = np.divide(1.0, squares, out=np.zeros(K), where=squares > 0)
    row_starts = np.arange(0, K * K, K)
    C_flat, V_flat = C.reshape(-1), V.reshape(-1)
    for j in order.T:
        at = row_starts + j
        conflict = np.minimum(V_flat.take(at), 0.0)
        if conflict.any():
            delta = -conflict * inverse_squares.take(j)
            C_flat[at] += delta
            V += delta[:, None] * gram.take(j, axis=0)
    return C


@dataclass
class PCGrad(Combiner):
    """PCGrad: the mean of the gradients, each projected off the gradients that it conflicts with.

    Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1; TOPPO, Section C.1. Task i meets the
    other tasks in a random order, and its gradient loses the component against each g_j with <g_i^PC, g_j> < 0.

    Weights are non-negative (TOPPO, Theorem C.1). The method is not scale-invariant. A dead task keeps the weight of
    its own gradient, which moves nothing.

    Args:
        order: "row" draws a random order for each task, "shared" one order for all tasks.
        reduction: "mean" of the projected gradients (TOPPO), or their "sum" (Algorithm 1).

    Example:
        >>> PCGrad().combine(np.array([[1.0, -1.0], [-1.0, 4.0]]), order=[[1], [0]]).weights
        array([1.   , 0.625])
    """

    name: ClassVar[str] = "pcgrad"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_order: ClassVar[bool] = True

    order: Literal["row", "shared"] = "row"
    reduction: Literal["mean", "sum"] = "mean"

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
        """The tasks that each task meets, in order: int64, shape (K, K - 1). Row i holds every j != i once."""
        return draw_row_orders(rng, n_tasks) if self.order == "row" else draw_shared_order(rng, n_tasks)

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        assert order is not None  # combine checked it
        check_row_orders(order, len(gram), self.name)
        total = project_conflicts(gram, order).sum(axis=0)
        return Combination(total / len(gram) if self.reduction == "mean" else total, Record())

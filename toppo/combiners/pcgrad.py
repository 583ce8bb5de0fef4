"""PCGrad: project each gradient off the ones it conflicts with. Exact on the Gram, all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record


def draw_row_orders(rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
    """For every task a random order of the other tasks, int64; row i holds every j != i once."""
    others = np.tile(np.arange(n_tasks - 1), (n_tasks, 1))
    others += others >= np.arange(n_tasks)[:, None]
    return rng.permuted(others, axis=1)


def draw_shared_order(rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
    """One random order of the tasks, followed by every task that skips itself; same shape as `draw_row_orders`."""
    sequence = rng.permutation(n_tasks)
    return np.stack([sequence[sequence != i] for i in range(n_tasks)])


def check_row_orders(order: Int[np.ndarray, "K K-1"], n_tasks: int, method: str) -> None:
    """Refuse an order whose row i is not a permutation of the tasks j != i.

    Raises:
        ValueError: naming the method, and the shape or the row at fault.
    """
    if order.shape != (n_tasks, n_tasks - 1):
        raise ValueError(
            f"{method}: the order of {n_tasks} tasks has shape ({n_tasks}, {n_tasks - 1}), not {order.shape}"
        )
    with_self = np.concatenate([order, np.arange(n_tasks)[:, None]], axis=1)
    with_self.sort(axis=1)
    wrong = (with_self != np.arange(n_tasks)).any(axis=1)
    if wrong.any():
        raise ValueError(f"{method}: row {wrong.argmax()} of the order must hold every other task exactly once")


def project_conflicts(gram: Float[np.ndarray, "K K"], order: Int[np.ndarray, "K K-1"]) -> Float[np.ndarray, "K K"]:
    """The coefficients of the projected gradients, g_i^PC = sum_j C_ij g_j (Yu et al., 2020, Algorithm 1).

    Task i meets the other tasks in the order of row i. Where the gradient it has by then conflicts with the original
    g_j, the conflicting part is projected out: C_ij grows by max(0, -<g_i^PC, g_j>) / ||g_j||^2. With V_ij = <g_i^PC,
    g_j> kept beside C this needs only G, and the rows do not depend on each other.

    Args:
        gram: G, shape (K, K).
        order: the tasks each row visits, shape (K, K - 1).

    Returns:
        C, shape (K, K), non-negative with C_ii = 1; a dead task (G_jj = 0) is never projected on.
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
    """PCGrad (Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1; TOPPO Section C.1).

    Weights non-negative (Theorem C.1), not scale-invariant. A dead task keeps its weight and moves nothing.

    Options:
        order: "row", a random order for every task; "shared", one for all of them.
        reduction: "mean" of the projected gradients (TOPPO), or their "sum" (Algorithm 1).
    """

    name: ClassVar[str] = "pcgrad"
    needs_order: ClassVar[bool] = True

    order: Literal["row", "shared"] = "row"
    reduction: Literal["mean", "sum"] = "mean"

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
        """Who meets whom when: int64, shape (K, K - 1); row i holds every j != i once."""
        return draw_row_orders(rng, n_tasks) if self.order == "row" else draw_shared_order(rng, n_tasks)

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
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

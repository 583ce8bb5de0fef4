"""GradVac: raises the cosine of each pair of gradients to its running mean. It needs the Gram alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record, option_error
from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks
from toppo.combiners.pcgrad import check_row_orders, draw_row_orders

_STEEPEST = 1 - 1e-9
"""Largest cosine that a correction aims at. To reach 1, a gradient would need an infinite multiple of the other one."""


@dataclass
class GradVac(Combiner):
    """GradVac: gradients corrected so that each pair's cosine is at least its running mean, then averaged.

    Wang et al., Gradient Vaccine, ICLR 2021, Algorithm 1 and Equation 2. Task i meets the other tasks in the order of
    row i. phi is the cosine of task i's corrected gradient with g_j, and phi_hat_ij is the running mean of this cosine.
    Where phi < phi_hat, a multiple of g_j is added to the gradient of task i, so that the cosine becomes phi_hat. The
    factor on g_j is

        ||g_i|| (phi_hat sqrt(1 - phi^2) - phi sqrt(1 - phi_hat^2)) / (||g_j|| sqrt(1 - phi_hat^2))

    Then phi_hat becomes (1 - beta) phi_hat + beta phi. Weights are non-negative. The method is not scale-invariant. The
    other tasks skip a dead task, and it keeps the weight of its own gradient.

    State: phi_hat, shape (K, K), zeros before the first call.

    Args:
        beta: rate of the running mean, in [0, 1].
        reduction: "mean" of the corrected gradients, or their "sum" (Algorithm 1).

    Example:
        >>> GradVac().combine(np.array([[1.0, -1.0], [-1.0, 4.0]]), order=[[1], [0]]).weights
        array([1.   , 0.625])
    """

    name: ClassVar[str] = "gradvac"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_order: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("phi_hat",)

    beta: float = 0.01
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise option_error(self.name, "beta", self.beta, "must be in [0, 1]")

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
        """The tasks that each task meets, in order: int64, shape (K, K - 1). Row i holds every j != i once."""
        return draw_row_orders(rng, n_tasks)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        assert order is not None  # combine checked it
        K = len(gram)
        check_row_orders(order, K, self.name)
        phi_hat = self.recall("phi_hat", (K, K))
        norms = gradient_norms(gram)
        alive = alive_tasks(norms)
        rows = np.arange(K)
        C = np.eye(K)  # corrected gradients, g_i' = sum_j C_ij g_j
        V = gram.copy()  # V_ij = <g_i', g_j>
        for j in order.T:
            met = alive & alive[j]
            own = np.sqrt(np.maximum(np.einsum("ij,ij->i", C, V), 0.0))
            phi = np.divide(V[rows, j], own * norms[j], out=np.zeros(K), where=met & (own > 0)).clip(-1, 1)
            target = phi_hat[rows, j]
            aim = np.minimum(target, _STEEPEST)
            sine, aim_sine = np.sqrt(1 - phi**2), np.sqrt(1 - aim**2)
            delta = np.divide(
                own * (aim * sine - phi * aim_sine), norms[j] * aim_sine, out=np.zeros(K), where=met & (phi < aim)
            )
            C[rows, j] += delta
            V += delta[:, None] * gram[j]
            phi_hat[rows, j] = np.where(met, (1 - self.beta) * target + self.beta * phi, target)
        self.remember(phi_hat=phi_hat)
        total = C.sum(axis=0)
        return Combination(total / K if self.reduction == "mean" else total, Record())

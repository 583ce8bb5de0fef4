"""GradVac: raise the cosine between each pair of gradients to its running mean. On the Gram, all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record
from toppo.combiners.geometry import gradient_norms
from toppo.combiners.gram import alive_tasks
from toppo.combiners.pcgrad import check_row_orders, draw_row_orders

_STEEPEST = 1 - 1e-9
"""Largest cosine aimed at: at 1 the gradient would have to be replaced by an infinite multiple of the other."""


@dataclass
class GradVac(Combiner):
    """GradVac (Wang et al., Gradient Vaccine, ICLR 2021, Algorithm 1 and Equation 2).

    Task i meets the others in the order of row i. Where the cosine phi of its gradient with g_j is below the running
    mean phi_hat_ij of such cosines, it takes on ||g_i|| (phi_hat sqrt(1 - phi^2) - phi sqrt(1 - phi_hat^2)) / (||g_j||
    sqrt(1 - phi_hat^2)) of g_j, which makes the cosine phi_hat; then phi_hat <- (1 - beta) phi_hat + beta phi. Weights
    non-negative, not scale-invariant. Dead tasks are not met.

    State: phi_hat, shape (K, K), zeros before the first call.

    Options:
        beta: rate of the running mean, in [0, 1].
        reduction: "mean" of the corrected gradients, or their "sum" (Algorithm 1).
    """

    name: ClassVar[str] = "gradvac"
    needs_order: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("phi_hat",)

    beta: float = 0.01
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"{self.name}: beta must be in [0, 1], not {self.beta!r}")

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, linear_under_scaling=True, homogeneous=True)

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "K K-1"]:
        """Who meets whom when: int64, shape (K, K - 1); row i holds every j != i once."""
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

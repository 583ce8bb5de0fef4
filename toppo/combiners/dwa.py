"""DWA: weigh tasks by how slowly their losses fall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import Claims, Combination, Combiner, Record, require_positive
from toppo.combiners.gram import check_positive_losses


@dataclass
class DWA(Combiner):
    """Dynamic Weight Average (Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, Equation 7).

    w = K softmax(r / temperature), r_i = L_i(t - 1) / L_i(t - 2), with L(t) the losses averaged over epoch t; 1 in the
    first two epochs. Weights positive, summing to K, blind to G; not scale-invariant. Losses must be positive.

    State: the last two epochs' average losses (NaN before they exist), the running sum of this one's, and the calls so
    far.

    Options:
        temperature: > 0; the larger, the more even the weights.
        period: calls that make an epoch, >= 1.
    """

    name: ClassVar[str] = "dwa"
    needs_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("averages", "running", "calls")

    temperature: float = 2.0
    period: int = 1

    def __post_init__(self) -> None:
        require_positive(self.name, temperature=self.temperature, period=self.period)

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
        assert losses is not None  # combine checked it
        check_positive_losses(losses, self.name)
        K = len(losses)
        older, newer = averages = self.recall("averages", (2, K), fill=np.nan)
        weights = np.ones(K) if np.isnan(averages).any() else K * softmax(newer / older / self.temperature)
        running = self.recall("running", (K,)) + losses
        calls = self.recall("calls", ()) + 1
        if calls % self.period == 0:
            averages = np.stack([newer, running / self.period])
            running = np.zeros(K)
        self.remember(averages=averages, running=running, calls=calls)
        return Combination(weights, Record())

"""Nash-MTL: the Nash bargaining solution between the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, require_positive
from toppo.combiners.fairgrad import solve


@dataclass
class NashMTL(Combiner):
    """Nash-MTL: the bargaining solution G w = 1 / w, with d shortened to `max_norm`.

    Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, Equation 2 and Algorithm 1. The direction of d is
    the same as with FairGrad at alpha = 1 (TOPPO, Remark C.1). Only the length of d differs. As in the authors' code,
    the equation is solved for G / ||G||_F, and d is then shortened to `max_norm`. This solver is exact. The published
    solver is `torchjd:weighting=NashMTL`.

    Weights are non-negative. d conflicts with no task. Its direction is scale-invariant, its length is not. A dead task
    gets weight 0.

    Args:
        max_norm: largest ||d||, in the unit of the gradients, > 0.

    Example:
        >>> NashMTL(max_norm=2**0.5).combine(np.diag([4.0, 16.0])).weights
        array([0.5 , 0.25])
    """

    name: ClassVar[str] = "nash-mtl"

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.name, max_norm=self.max_norm)

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, non_conflicting=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        bargain = solve(gram)
        # With f = ||G||_F, G w = 1 / w means (G / f)(sqrt(f) w) = 1 / (sqrt(f) w). And ||J'w||^2 = K.
        length = min(math.sqrt(float(np.linalg.norm(gram))), self.max_norm / math.sqrt(len(gram)))
        return Combination(length * bargain.weights, bargain.record)

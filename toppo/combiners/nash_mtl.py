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
    """Nash-MTL (Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, Equation 2 and Algorithm 1).

    The bargaining solution, G w = 1 / w, is FairGrad's at alpha = 1 (TOPPO, Remark C.1); what is Nash-MTL's own is the
    length of the step. As in its code, the equation is solved for G / ||G||_F, and d is shortened to max_norm. Solved
    exactly here; the published solver is `torchjd:weighting=NashMTL`. Weights non-negative, non-conflicting; the
    direction of d is scale-invariant, its length not.

    Options:
        max_norm: largest ||d||, in the unit of the gradients, > 0.
    """

    name: ClassVar[str] = "nash-mtl"

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.name, max_norm=self.max_norm)

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims(nonnegative=True, non_conflicting=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        bargain = solve(gram)
        # G w = 1 / w has (G / f)(sqrt(f) w) = 1 / (sqrt(f) w), and ||d||^2 = K.
        length = min(math.sqrt(float(np.linalg.norm(gram))), self.max_norm / math.sqrt(len(gram)))
        return Combination(length * bargain.weights, bargain.record)

"""FAMO: lower all losses at the same relative rate, from the losses alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import Claims, Combination, Combiner, Record, require_positive
from toppo.combiners.gram import check_positive_losses

_BETA_1, _BETA_2, _ADAM_EPS = 0.9, 0.999, 1e-8


@dataclass
class FAMO(Combiner):
    """FAMO (Liu et al., Fast Adaptive Multitask Optimization, NeurIPS 2023, Algorithm 1).

    w_i = c z_i / L_i with z = softmax(xi) and c = 1 / sum_i(z_i / L_i), so that the weights sum to 1. The logits xi
    follow by Adam the gradient of <z, log L_before - log L_after>: Algorithm 1 takes L_after from the next iterate,
    which is what the next call brings. (The authors' code evaluates the same batch twice, which no Gram can stand for.)
    Weights positive, blind to G; not scale-invariant. Losses must be positive.

    State: the logits, Adam's two moments and its step count, and the last losses (NaN before the first call).

    Options:
        lr: Adam's learning rate on the logits, > 0.
        weight_decay: L2 decay of the logits, the paper's gamma, >= 0.
    """

    name: ClassVar[str] = "famo"
    needs_losses: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("logits", "first_moment", "second_moment", "steps", "last_losses")

    lr: float = 0.025
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self.name, lr=self.lr)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"{self.name}: weight_decay must be a finite number >= 0, not {self.weight_decay!r}")

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
        logits = self.recall("logits", losses.shape)
        last_losses = self.recall("last_losses", losses.shape, fill=np.nan)
        if not np.isnan(last_losses).any():
            logits = self._step(logits, np.log(last_losses) - np.log(losses))
        self.remember(logits=logits, last_losses=losses)
        ratios = softmax(logits) / losses
        return Combination(ratios / ratios.sum(), Record())

    def _step(self, logits: Float[np.ndarray, "K"], decrease: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        """One step of Adam on the logits, along the gradient of <softmax(logits), decrease>."""
        z = softmax(logits)
        gradient = z * (decrease - z @ decrease) + self.weight_decay * logits
        first = _BETA_1 * self.recall("first_moment", logits.shape) + (1 - _BETA_1) * gradient
        second = _BETA_2 * self.recall("second_moment", logits.shape) + (1 - _BETA_2) * gradient**2
        steps = self.recall("steps", ()) + 1
        self.remember(first_moment=first, second_moment=second, steps=steps)
        corrected = np.sqrt(second / (1 - _BETA_2**steps)) + _ADAM_EPS
        stepped: np.ndarray = logits - self.lr * first / (1 - _BETA_1**steps) / corrected
        return stepped

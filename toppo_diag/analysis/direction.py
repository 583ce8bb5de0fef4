"""The step of training as far as it is known: the dumped minibatches with their weights, and who makes the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners import make
from toppo.combiners.geometry import contribution_spread, contributions, gradient_norms
from toppo_diag.analysis.presence import of_known, shares_of_step, top_1_of_step
from toppo_diag.analysis.recorded import SideRecord
from toppo_diag.analysis.weights import weight_shares


@dataclass(frozen=True)
class Direction:
    """d = J'w of M dumped minibatches.

    Attributes:
        steps: steps of each minibatch, (M,).
        gram: G, in the units in which the combiner saw it, (M, K, K).
        known: whether each task is known in each minibatch, (M, K).
        weights: w, 0 for a task that is not known, (M, K).
        assumed: whether no weights were recorded, so that these are those of a plain sum of the losses.
    """

    steps: Int[np.ndarray, "M"]
    gram: Float[np.ndarray, "M K K"]
    known: Bool[np.ndarray, "M K"]
    weights: Float[np.ndarray, "M K"]
    assumed: bool

    @classmethod
    def of(cls, record: SideRecord) -> Direction:
        """The minibatches of a side whose weights are known. Where none were recorded, all, with those of a sum."""
        assumed = record.weights is None
        used = make("sum").solve_many(record.dumped).weights if record.weights is None else record.weights
        w = np.where(record.there, used, 0.0)
        good = np.isfinite(w).all(axis=1)
        return cls(record.at[good], record.dumped[good], record.there[good], w[good], assumed)

    @property
    def contributions(self) -> Float[np.ndarray, "M K"]:
        """||w_i g_i||; NaN for a task that is not known."""
        return of_known(contributions(self.gram, self.weights), self.known)

    @property
    def spread(self) -> Float[np.ndarray, "M"]:
        """Largest over smallest contribution, see `contribution_spread`."""
        return contribution_spread(self.gram, self.weights)

    @property
    def top_1(self) -> Float[np.ndarray, "M"]:
        """The largest contribution over the sum of all; NaN where fewer than two are known or none contributes."""
        return top_1_of_step(self.gram, self.weights, self.known)

    @property
    def shares(self) -> Float[np.ndarray, "M K"]:
        """w_i <g_i, d> / ||d||^2; NaN for a task that is not known."""
        return shares_of_step(self.gram, self.weights, self.known)

    @property
    def even_shares(self) -> Float[np.ndarray, "M K"]:
        """The shares in units of an even share, 1 / (number of known tasks); NaN for a task without a gradient."""
        n = self.known.sum(axis=1, keepdims=True)
        return np.where((gradient_norms(self.gram) > 0) & (n > 1), n * self.shares, np.nan)

    @property
    def weight_shares(self) -> Float[np.ndarray, "M K"]:
        """w_i / sum_j |w_j|; NaN for a task that is not known."""
        return of_known(weight_shares(self.weights), self.known)

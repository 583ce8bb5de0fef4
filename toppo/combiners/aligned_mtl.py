"""Aligned-MTL: the mean of the gradients after they are made orthogonal and equally long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, DeadTasks, Record, Status


@dataclass
class AlignedMTL(Combiner):
    """Aligned-MTL: w = sqrt(lambda_min) G^(-1/2) 1 / K.

    Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023, Algorithm 1. G^(-1/2) and
    lambda_min use the eigenvalues of G above K eps lambda_max only. Dead tasks fall under this cut. They get weight 0
    and still count in K. If every task is dead, the weights are 1 / K with status NO_GRADIENT.

    LibMTL's version differs in two points. Its direction is the sum of the aligned gradients, that is, K times ours.
    And its cut is at the eps of float32 (1.2e-7), so it drops small eigenvalues that this version keeps. Such an
    eigenvalue makes lambda_min, and with it the direction, much smaller here.

    Weights have either sign. The method is not scale-invariant.

    Example:
        >>> AlignedMTL().combine(np.diag([1.0, 4.0])).weights
        array([0.5 , 0.25])
    """

    name: ClassVar[str] = "aligned-mtl"
    dead_tasks: ClassVar[DeadTasks] = "keep"

    @property
    def claims(self) -> Claims:
        return Claims(homogeneous=True)

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        K = len(gram)
        eigenvalues, V = np.linalg.eigh(gram)
        kept = eigenvalues > K * EPS * eigenvalues.max()
        if not kept.any():
            return Combination(np.full(K, 1 / K), Record(status=Status.NO_GRADIENT))
        eigenvalues, V = eigenvalues[kept], V[:, kept]
        return Combination(V @ (np.sqrt(eigenvalues.min() / eigenvalues) * V.sum(axis=0)) / K, Record())

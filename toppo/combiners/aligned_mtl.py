"""Aligned-MTL: make the gradients orthogonal and equally long, then average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import EPS, Claims, Combination, Combiner, Record, Status


@dataclass
class AlignedMTL(Combiner):
    """Aligned-MTL (Senushkin et al., Independent Component Alignment, CVPR 2023, Algorithm 1): w = sqrt(lambda_min)
    G^(-1/2) 1 / K.

    G^(-1/2) and lambda_min are taken over the eigenvalues above K eps lambda_max. Weights of either sign, not
    scale-invariant.
    """

    name: ClassVar[str] = "aligned-mtl"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
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

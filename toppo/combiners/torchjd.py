"""TorchJD's own weightings, behind the same interface: the originals, to compare with. Imports torch on use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, Record, Status

if TYPE_CHECKING:
    from torch import Tensor

_GRAM_WEIGHTINGS = ("AlignedMTL", "DualProj", "IMTLG", "MGDA", "UPGrad")


@dataclass
class TorchJD(Combiner):
    """A weighting of TorchJD 0.18 (Quinton and Rey, https://torchjd.org), on a Gram scaled to unit trace, in float64.

    The scale closes TorchJD's absolute thresholds, the check that every Gram goes through its silence on NaN. What
    draws from torch's global generator (PCGrad, GradVac) is not here: `pcgrad` and `gradvac` take their order
    explicitly. What a weighting promises, its own documentation says; nothing is claimed here.

    NashMTL and ConFIG take a Jacobian but depend on its Gram alone: they are handed a factor F with F F' = G. NashMTL
    starts from its last weights: that is its state. Its clip to length max_norm = 1 is made in the gradients' own unit.

    Options:
        weighting: which; UPGrad and DualProj need quadprog, NashMTL needs cvxpy and ecos, which the extra `torchjd`
            brings.
    """

    name: ClassVar[str] = "torchjd"
    needs_torch: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("nash_weights",)

    weighting: Literal["AlignedMTL", "ConFIG", "DualProj", "IMTLG", "MGDA", "NashMTL", "UPGrad"] = "UPGrad"

    @property
    def claims(self) -> Claims:
        """See `Claims`."""
        return Claims()

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        trace = float(np.trace(gram))
        if trace == 0:
            return Combination(np.full(len(gram), 1 / len(gram)), Record(status=Status.NO_GRADIENT))
        try:
            import torch
            from torchjd import aggregation

            unit = torch.from_numpy(gram / trace)
            if self.weighting in _GRAM_WEIGHTINGS:
                weights = getattr(aggregation, f"{self.weighting}Weighting")()(unit).numpy()
            elif self.weighting == "ConFIG":
                weights = self._config(aggregation, unit)
            else:
                weights = self._nash(aggregation, unit, math.sqrt(trace))
        except ImportError as error:
            raise ImportError(
                f"{self.spec} needs {error.name or 'a solver that TorchJD did not find'}: pip install 'toppo[torchjd]'"
            ) from error
        return Combination(np.asarray(weights, dtype=np.float64), Record())

    def _nash(self, aggregation: Any, unit: Tensor, scale: float) -> Float[np.ndarray, "K"]:
        """NashMTL's weights, its clip undone and made again for gradients `scale` times as long."""
        factor = _factor(unit)
        solver = aggregation.NashMTL(n_tasks=len(factor), max_norm=0.0).weighting
        solver.prvs_alpha = self.recall("nash_weights", (len(factor),), fill=1.0)
        weights: np.ndarray = solver(factor).numpy().astype(np.float64)
        self.remember(nash_weights=weights)
        length = scale * float(np.linalg.norm(weights @ factor.numpy()))
        return weights / max(1.0, length)

    def _config(self, aggregation: Any, unit: Tensor) -> Float[np.ndarray, "K"]:
        """The weights of ConFIG's direction, which it gives as a vector only: the least that give it."""
        factor = _factor(unit)
        weights: np.ndarray = np.linalg.pinv(factor.numpy().T) @ aggregation.ConFIG()(factor).numpy()
        return weights


def _factor(gram: Tensor) -> Tensor:
    """F, shape (K, K), with F F' = G."""
    eigenvalues, V = np.linalg.eigh(gram.numpy())
    return gram.new_tensor(V * np.sqrt(np.maximum(eigenvalues, 0.0)))

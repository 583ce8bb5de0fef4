"""TorchJD's own weightings behind the interface of `Combiner`, for comparisons. torch is imported on first use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.base import Claims, Combination, Combiner, DeadTasks, Record, Status
from toppo.combiners.errors import MissingPackageError

if TYPE_CHECKING:
    from torch import Tensor

_GRAM_WEIGHTINGS = ("AlignedMTL", "DualProj", "IMTLG", "MGDA", "UPGrad")


@dataclass
class TorchJD(Combiner):
    """TorchJD: the weights of a method of the library TorchJD, in float64.

    TorchJD 0.18 (Quinton and Rey, https://torchjd.org). The Gram is scaled to unit trace, because TorchJD has absolute
    thresholds. It is checked like every Gram, because TorchJD accepts NaN without an error. TorchJD's PCGrad and
    GradVac are left out, because they draw from torch's global generator. Use `pcgrad` and `gradvac` instead, which
    take an explicit order. This class claims nothing about the weights; see TorchJD's documentation. If every gradient
    is exactly zero, the weights are 1 / K with status NO_GRADIENT. Other dead tasks are passed on.

    NashMTL and ConFIG take J, but they depend on its Gram alone. So they get a factor F (K, K) with F F' = G. NashMTL
    clips d to length 1, here in the unit of the gradients.

    State: NashMTL's last weights. The next call of NashMTL starts from them.

    Args:
        weighting: TorchJD's method. UPGrad and DualProj need quadprog, NashMTL needs cvxpy and ecos. The extra
            `torchjd` installs all three.
    """

    name: ClassVar[str] = "torchjd"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_torch: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ("nash_weights",)

    weighting: Literal["AlignedMTL", "ConFIG", "DualProj", "IMTLG", "MGDA", "NashMTL", "UPGrad"] = "UPGrad"

    @property
    def claims(self) -> Claims:
        return Claims()

    def check_use(self, n_tasks: int) -> None:
        """Raise MissingPackageError if TorchJD is not installed.

        Args:
            n_tasks: K.
        """
        if find_spec("torchjd") is None:
            raise MissingPackageError(f"{self.spec} needs torchjd: pip install 'toppo[torchjd]'")

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
            missing = error.name or "a solver that TorchJD did not find"
            raise MissingPackageError(f"{self.spec} needs {missing}: pip install 'toppo[torchjd]'") from error
        return Combination(np.asarray(weights, dtype=np.float64), Record())

    def _nash(self, aggregation: Any, unit: Tensor, scale: float) -> Float[np.ndarray, "K"]:
        """NashMTL's weights, with d clipped to length 1 for gradients that are `scale` times as long."""
        factor = _factor(unit)
        solver = aggregation.NashMTL(n_tasks=len(factor), max_norm=0.0).weighting
        solver.prvs_alpha = self.recall("nash_weights", (len(factor),), fill=1.0)
        weights: np.ndarray = solver(factor).numpy().astype(np.float64)
        self.remember(nash_weights=weights)
        length = scale * float(np.linalg.norm(weights @ factor.numpy()))
        return weights / max(1.0, length)

    def _config(self, aggregation: Any, unit: Tensor) -> Float[np.ndarray, "K"]:
        """The smallest weights that make ConFIG's direction, because TorchJD returns the direction alone."""
        factor = _factor(unit)
        weights: np.ndarray = np.linalg.pinv(factor.numpy().T) @ aggregation.ConFIG()(factor).numpy()
        return weights


def _factor(gram: Tensor) -> Tensor:
    """A factor F, shape (K, K), with F F' = G."""
    eigenvalues, V = np.linalg.eigh(gram.numpy())
    return gram.new_tensor(V * np.sqrt(np.maximum(eigenvalues, 0.0)))

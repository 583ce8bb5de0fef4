"""TorchJD: what an aggregator or a weighting is given, recorded by a forward hook."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from toppo.dump import DumpWriter

if TYPE_CHECKING:
    from torchjd.aggregation import Aggregator, Weighting


def torchjd_hook(module: Aggregator | Weighting[Any], dump: DumpWriter, *, every: int = 100) -> RemovableHandle:
    """Record what TorchJD computes anyway, each `every` calls of an aggregator or of a weighting.

    An aggregator is given the Jacobian J (K, P), by `jac_to_grad`. A weighting is given the Gram (K, K), by
    `torchjd.autogram`, and returns the weights, which are recorded too.

    Args:
        module: the aggregator or the weighting.
        dump: has one side. For a weighting it was created with `slabs=False`.
        every: calls between two records.

    Returns:
        The handle of the hook. Its `remove` ends the recording.
    """
    from torchjd.aggregation import WeightedAggregator, Weighting

    calls = count()
    (side,) = dump.sides
    given = f"{side}_gram" if isinstance(module, Weighting) else side
    # The weighting of an aggregator is given J too. It returns the weights, and the aggregator only their direction.
    hooked: nn.Module = module.weighting if isinstance(module, WeightedAggregator) else module
    weighs = isinstance(hooked, Weighting)

    def record(_: nn.Module, matrix: tuple[Tensor], made: Tensor) -> None:
        step = next(calls)
        if step % every == 0:
            dump.record(step=step, **{given: matrix[0]}, **({f"{side}_weights": made} if weighs else {}))

    return hooked.register_forward_hook(record)

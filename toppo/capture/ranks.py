"""Several processes that train one model: whose gradients a dump holds, and who writes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from toppo.capture.errors import CaptureError
from toppo.common.errors import ToppoError

T = TypeVar("T")

log = logging.getLogger("toppo.capture")


class Ranks:
    """The processes that hold a copy of one model under `DistributedDataParallel`; or this process alone.

    Args:
        model: the recorded model.

    Attributes:
        several: whether gradients are averaged over processes.
        writes: whether this process writes the dump.

    Raises:
        CaptureError: the model's parameters are sharded over processes (FSDP).
    """

    def __init__(self, model: nn.Module) -> None:
        if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()) or any(
            type(p.data).__name__ == "DTensor" for p in model.parameters()
        ):
            raise CaptureError(
                "this model is sharded over processes (FSDP), so no process has a whole gradient; record a run under "
                "DistributedDataParallel, or a smaller model in one process"
            )
        self._group = model.process_group if isinstance(model, DistributedDataParallel) else None
        self.several = self._group is not None and distributed.get_world_size(self._group) > 1
        self.writes = not self.several or distributed.get_rank(self._group) == 0
        if not self.several and distributed.is_available() and distributed.is_initialized():
            world, rank = distributed.get_world_size(), distributed.get_rank()
            if world > 1:
                log.warning(
                    "this process is rank %d of %d, and the model is not in DistributedDataParallel: "
                    "the recorded gradients are this rank's own, not the mean over the ranks",
                    rank,
                    world,
                )

    def agree(self, find: Callable[[], T]) -> T:
        """What the first process finds, in every process. An error of the first process is raised in all of them."""
        if not self.several:
            return find()
        found: list[Any] = [None, None]
        own: BaseException | None = None
        if self.writes:
            try:
                found[0] = find()
            except ToppoError as error:
                found[1] = own = error
            except BaseException as error:  # perhaps one that cannot be sent, or Ctrl-C
                own = error
                found[1] = ToppoError(f"the first process has failed ({type(error).__name__}: {error}); see its output")
        distributed.broadcast_object_list(found, src=distributed.get_global_rank(self._group, 0), group=self._group)  # type: ignore[arg-type]
        if own is not None:
            raise own
        if found[1] is not None:
            raise found[1]
        return found[0]  # type: ignore[no-any-return]

    def average(self, blocks: Sequence[Tensor]) -> None:
        """Replace each block by its mean over the processes. All processes must have the same blocks."""
        if self.several:
            for block in blocks:
                distributed.all_reduce(block, group=self._group)
                block /= distributed.get_world_size(self._group)

    def any(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Whether each flag is set in any of the processes."""
        if not self.several:
            return list(flags)
        number = torch.tensor([int(flag) for flag in flags], device=device)
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX, group=self._group)
        return [bool(n) for n in number.tolist()]

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over the processes that have a number, entry by entry; NaN where none has one."""
        if not self.several:
            return numbers
        known = numbers.isfinite() | numbers.isinf()
        both = torch.stack([torch.where(known, numbers, 0.0), known.to(numbers)])
        distributed.all_reduce(both, group=self._group)
        return both[0] / both[1]

"""LibMTL: what its trainer computes, recorded in its `backward`. Its weighting methods keep deciding the step."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from torch import Tensor

from toppo.dump import DumpWriter, ParameterSlice

if TYPE_CHECKING:
    from LibMTL import Trainer


def libmtl_parameters(trainer: Trainer) -> list[ParameterSlice]:
    """Name and shape of the shared parameters, for `sides` of `DumpWriter.create`."""
    shared = {id(p) for p in trainer.model.get_share_params()}
    return [ParameterSlice(name, tuple(p.shape)) for name, p in trainer.model.named_parameters() if id(p) in shared]


def libmtl_hook(trainer: Trainer, dump: DumpWriter, *, every: int = 100) -> None:
    """Record the per-task gradients, losses and weights of each `every`-th step of a LibMTL trainer.

    Args:
        trainer: any weighting method, with `rep_grad=False` or `True`.
        dump: has one side with the `libmtl_parameters`.
        every: steps between two records.
    """
    model, backward, steps = trainer.model, trainer.model.backward, count()
    (side,) = dump.sides

    def recording(losses: Tensor, **options: Any) -> Any:
        step = next(steps)
        if step % every:
            return backward(losses, **options)
        model._compute_grad_dim()
        values = {side: model._compute_grad(losses, "autograd"), "loss": losses.detach().clone()}
        weights = backward(losses, **options)
        dump.record(step=step, **values, **({} if weights is None else {f"{side}_weights": weights}))
        return weights

    model.backward = recording

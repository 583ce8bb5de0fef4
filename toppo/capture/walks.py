"""Per-task gradients by walking the graph once per task, or once for all tasks with a batch of gradients.

Both are right for every network that autograd is right for. They hold K P numbers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toppo.capture.graph import sources
from toppo.capture.losses import TaskLosses
from toppo.capture.rows import Rows


def walk(losses: TaskLosses, parameters: Sequence[nn.Parameter], rows: Rows, scale: float | Tensor = 1.0) -> None:
    """One walk of the graph per task. The graph stays for the backward pass that follows.

    Args:
        losses: K losses.
        parameters: the parameters whose gradients are wanted.
        rows: takes the gradients. Those of an absent task are zero.
        scale: a number that multiplies every loss.
    """
    blocks = [p.new_zeros(len(losses.values), *p.shape, requires_grad=False) for p in parameters]
    trained = [index for index, p in enumerate(parameters) if p.requires_grad]
    values = dict(losses.moving)
    for i, start in sources(losses) if trained else []:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            [start],  # type: ignore[arg-type]  # a tensor or an operation
            [parameters[index] for index in trained],
            [(torch.ones_like(values[i]) * scale).to(values[i])],
            retain_graph=True,
            allow_unused=True,
        )
        for index, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                blocks[index][i] = gradient.to_dense() if gradient.is_sparse else gradient
    for index, block in enumerate(blocks):
        rows.take(index, block)


def walk_together(
    losses: TaskLosses, parameters: Sequence[nn.Parameter], rows: Rows, scale: float | Tensor = 1.0
) -> None:
    """One walk of the graph with K gradients at once, by torch's vmap (`is_grads_batched`).

    It needs K times the memory of one walk's activations. Some operations, and compiled models, do not support it.

    Args:
        losses: K losses.
        parameters: the parameters whose gradients are wanted.
        rows: takes the gradients. Those of an absent task are zero.
        scale: a number that multiplies every loss.

    Raises:
        RuntimeError: an operation of the graph has no batched form, or a loss is not finite. Zeros pass through the
            other losses here, and zero times infinity is NaN.
    """
    moving = [i for i, _ in losses.moving]
    values = torch.stack([value for _, value in losses.moving])
    if not values.isfinite().all():
        raise RuntimeError("a loss is not finite")
    trained = [index for index, p in enumerate(parameters) if p.requires_grad]
    if not trained:
        return
    directions = scale * torch.eye(len(moving), dtype=values.dtype, device=values.device)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        values,
        [parameters[index] for index in trained],
        directions,
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=True,
    )
    taken: set[int] = set()
    for index, gradients in zip(trained, found, strict=True):
        if gradients is None:
            continue
        if len(moving) < len(losses.values):
            p = parameters[index]
            block = p.new_zeros(len(losses.values), *p.shape, requires_grad=False)
            block[moving] = gradients
            gradients = block
        if gradients.data_ptr() in taken or not gradients.is_contiguous():
            # Two parameters that are added get one tensor. A sum broadcasts its gradient.
            gradients = gradients.clone(memory_format=torch.contiguous_format)
        taken.add(gradients.data_ptr())
        rows.take(index, gradients)

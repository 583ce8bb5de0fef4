"""Per-task gradients by walking the graph once per task, or once for all tasks with a batch of gradients.

Both are right for every network that autograd is right for. They hold K P numbers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toppo.capture.losses import TaskLosses
from toppo.capture.rows import Rows


def walk(losses: TaskLosses, parameters: Sequence[nn.Parameter], rows: Rows, scale: float = 1.0) -> None:
    """One walk of the graph per task. The graph stays for the backward pass that follows.

    Args:
        losses: K losses.
        parameters: the parameters whose gradients are wanted.
        rows: takes the gradients. Those of an absent task are zero.
        scale: a number that multiplies every loss.
    """
    blocks = [p.new_zeros(len(losses.values), *p.shape, requires_grad=False) for p in parameters]
    for i, value in losses.present:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            value, parameters, torch.full_like(value, scale), retain_graph=True, allow_unused=True
        )
        for block, gradient in zip(blocks, found, strict=True):
            if gradient is not None:
                block[i] = gradient.to_dense() if gradient.is_sparse else gradient
    for index, block in enumerate(blocks):
        rows.take(index, block)


def walk_together(losses: TaskLosses, parameters: Sequence[nn.Parameter], rows: Rows, scale: float = 1.0) -> None:
    """One walk of the graph with K gradients at once, by torch's vmap (`is_grads_batched`).

    It needs K times the memory of one walk's activations. Some operations, and compiled models, do not support it.

    Args:
        losses: K losses.
        parameters: the parameters whose gradients are wanted.
        rows: takes the gradients. Those of an absent task are zero.
        scale: a number that multiplies every loss.

    Raises:
        RuntimeError: an operation of the graph has no batched form.
    """
    present = [i for i, _ in losses.present]
    values = torch.stack([value for _, value in losses.present])
    directions = scale * torch.eye(len(present), dtype=values.dtype, device=values.device)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        values, parameters, directions, retain_graph=True, allow_unused=True, is_grads_batched=True
    )
    for index, (p, gradients) in enumerate(zip(parameters, found, strict=True)):
        if gradients is None:
            continue
        if len(present) < len(losses.values):
            block = p.new_zeros(len(losses.values), *p.shape, requires_grad=False)
            block[present] = gradients
            gradients = block
        rows.take(index, gradients)

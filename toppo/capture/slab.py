"""The slab: the matrix J (K, P) of per-task gradients of the parameters that all tasks share, and its Gram G = J J'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toppo.capture.gram import GRAM_CHUNK, block_gram
from toppo.capture.layers import TaskLayer
from toppo.dump import ParameterSlice

GRAM_ROWS = 32
"""Rows of G that are computed at a time, up to the diagonal. At K = 50 this takes a tenth less time than all of G."""


class Slab:
    """The per-task gradients J (K, P) of one network, float32. Row i is g_i, the gradient of task i's own loss.

    Columns are the parameters that all tasks share, flattened and concatenated in the order of the module. `layout` has
    their names and shapes. In memory each parameter has its own block (K, p), and a backward pass writes into it
    directly. `rows` and `load` exchange the whole matrix.

    Args:
        module: network whose task layers hold the shared parameters. Its other parameters must belong to one task each,
            and are not part of J.
        n_tasks: K.

    Attributes:
        parameters: the shared parameters, in the order of the columns.
        layout: name and shape of each shared parameter.
        size: P.

    Example:
        >>> from toppo.capture import TaskLinear
        >>> network = nn.Sequential(TaskLinear(3, 1))
        >>> slab = Slab(network, n_tasks=2)
        >>> x = torch.eye(3)[:2, None]  # (K, n, in): one sample per task
        >>> with slab.attached():
        ...     task_losses = network(x).flatten()
        ...     task_losses.sum().backward()
        >>> slab.gram()
        tensor([[2., 1.],
                [1., 2.]], dtype=torch.float64)
    """

    def __init__(self, module: nn.Module, n_tasks: int) -> None:
        self.parameters: list[nn.Parameter] = []
        self.layout: list[ParameterSlice] = []
        self._blocks: list[Tensor] = []
        self._layers: list[tuple[TaskLayer, dict[str, Tensor]]] = []
        for prefix, layer in module.named_modules():
            if not isinstance(layer, TaskLayer):
                continue
            grads: dict[str, Tensor] = {}
            for name, p in layer.named_parameters():
                grads[name] = p.new_zeros(n_tasks, *p.shape, requires_grad=False)
                self._blocks.append(grads[name].view(n_tasks, -1))
                self.layout.append(ParameterSlice(f"{prefix}.{name}", tuple(p.shape)))
                self.parameters.append(p)
            self._layers.append((layer, grads))
        self._sizes = [p.numel() for p in self.parameters]
        self.size = sum(self._sizes)
        whole = [size // GRAM_CHUNK * GRAM_CHUNK for size in self._sizes]
        self._tails = [block[:, n:] for block, n in zip(self._blocks, whole, strict=True)]
        n_rest = self.size - sum(whole)
        padded = self.parameters[0].new_zeros(n_tasks, -(-n_rest // GRAM_CHUNK) * GRAM_CHUNK, requires_grad=False)
        self._rest = padded[:, :n_rest]  # the tails are copied together here before each Gram
        self._chunks = [
            columns.unflatten(1, (-1, GRAM_CHUNK)).transpose(0, 1)
            for columns in [*(block[:, :n] for block, n in zip(self._blocks, whole, strict=True)), padded]
            if columns.shape[1] > 0
        ]

    @contextmanager
    def attached(self, tasks: slice = slice(None)) -> Iterator[None]:
        """A context in which a backward pass through the module fills rows of J.

        The backward pass leaves `.grad` of the shared parameters unchanged.

        Args:
            tasks: the tasks of the module's inputs, and the rows to fill.
        """
        for layer, grads in self._layers:
            layer.task_grads = {name: rows[tasks] for name, rows in grads.items()}
        try:
            yield
        finally:
            for layer, _ in self._layers:
                layer.task_grads = None

    def rows(self) -> Tensor:
        """A copy of J, (K, P)."""
        return torch.cat(self._blocks, dim=1)

    def load(self, rows: Tensor) -> None:
        """Set J.

        Args:
            rows: per-task gradients that were computed elsewhere, (K, P).
        """
        for block, columns in zip(self._blocks, rows.split(self._sizes, dim=1), strict=True):
            block.copy_(columns)

    def gram(self) -> Tensor:
        """The Gram G = J J', G_ij = <g_i, g_j>, (K, K), float64 (Section 2 of the TOPPO paper).

        Products of chunks of columns are float32. Their sum is float64.
        """
        torch.cat(self._tails, dim=1, out=self._rest)
        gram = self._rest.new_zeros(len(self._rest), len(self._rest), dtype=torch.float64)
        for start in range(0, len(gram), GRAM_ROWS):
            rows, columns = slice(start, start + GRAM_ROWS), slice(start + GRAM_ROWS)
            products = torch.cat([torch.bmm(chunks[:, rows], chunks[:, columns].mT) for chunks in self._chunks])
            gram[rows, columns] = products.sum(0, dtype=torch.float64)
        return gram.tril() + gram.tril(-1).mT

    def layer_grams(self) -> Tensor:
        """The Gram of the columns of each parameter, (L, K, K), float64, in the order of `layout`.

        They sum to `gram()` up to rounding. They are computed apart from it, so that it stays the same to the bit.
        """
        return torch.stack([block_gram(block) for block in self._blocks])

    def combine(self, weights: Tensor, out: Tensor) -> None:
        """Write the direction d = J'w into `out`.

        Args:
            weights: w, (K,), float32, on the device of J.
            out: d, (P,), overwritten.
        """
        for block, part in zip(self._blocks, out.split(self._sizes), strict=True):
            torch.mv(block.t(), weights, out=part)

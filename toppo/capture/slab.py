"""The slab J: per-task gradients of the parameters that all tasks share, and their Gram."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toppo.capture.layers import TaskLayer
from toppo.dump import ParameterSlice

GRAM_CHUNK = 2_048
"""Columns multiplied in fp32 before their Gram is added up in fp64: cosines of MT10 gradients good to 3e-7 (6e-6 at 16k
columns), at the cost of a plain fp32 product.
"""
GRAM_ROWS = 32
"""Rows of a Gram multiplied at a time, up to its diagonal: at K = 50 a tenth less time than both triangles take."""


class Slab:
    """The (K, P) per-task gradients g_i of the parameters all tasks share on one side (actor or critic), float32.

    Rows are tasks; columns are the side's shared parameters, flattened and concatenated in the module's own order
    (`layout` has names and shapes). In memory every parameter has a block (K, p) of its own, which a backward pass
    writes without a detour; `rows` and `load` are the whole matrix.

    Args:
        module: network whose task layers hold the shared parameters; other parameters of it belong to one task
            each and stay outside the slab.
        n_tasks: K.
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
        self._rest = padded[:, :n_rest]  # where the tails come together before each Gram
        self._chunks = [
            columns.unflatten(1, (-1, GRAM_CHUNK)).transpose(0, 1)
            for columns in [*(block[:, :n] for block, n in zip(self._blocks, whole, strict=True)), padded]
            if columns.shape[1] > 0
        ]

    @contextmanager
    def attached(self, tasks: slice = slice(None)) -> Iterator[None]:
        """Within this context a backward pass through the module on inputs of these tasks fills their rows of the slab
        (and leaves the shared parameters' `.grad` alone).
        """
        for layer, grads in self._layers:
            layer.task_grads = {name: rows[tasks] for name, rows in grads.items()}
        try:
            yield
        finally:
            for layer, _ in self._layers:
                layer.task_grads = None

    def rows(self) -> Tensor:
        """A copy of the whole, (K, P)."""
        return torch.cat(self._blocks, dim=1)

    def load(self, rows: Tensor) -> None:
        """Take gradients (K, P) from elsewhere."""
        for block, columns in zip(self._blocks, rows.split(self._sizes, dim=1), strict=True):
            block.copy_(columns)

    def gram(self) -> Tensor:
        """G_ij = <g_i, g_j>, (K, K) float64: fp32 products over chunks of columns, accumulated in fp64 (Section 2)."""
        torch.cat(self._tails, dim=1, out=self._rest)
        gram = self._rest.new_zeros(len(self._rest), len(self._rest), dtype=torch.float64)
        for start in range(0, len(gram), GRAM_ROWS):
            rows, columns = slice(start, start + GRAM_ROWS), slice(start + GRAM_ROWS)
            products = torch.cat([torch.bmm(chunks[:, rows], chunks[:, columns].mT) for chunks in self._chunks])
            gram[rows, columns] = products.sum(0, dtype=torch.float64)
        return gram.tril() + gram.tril(-1).mT

    def combine(self, weights: Tensor, out: Tensor) -> None:
        """Write d = sum_i w_i g_i into `out` (P,); weights (K,) float32 on the slab's device."""
        for block, part in zip(self._blocks, out.split(self._sizes), strict=True):
            torch.mv(block.t(), weights, out=part)

"""Where per-task gradients go: a parameter's K rows become its layer Gram, and are kept only if they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toppo.capture.gram import block_gram, no_autocast


class Rows:
    """Takes the rows (K, *shape) of one parameter after the other, in any order.

    Args:
        parameters: the shared parameters.
        n_tasks: K.
        keep: whether the rows are kept after their Gram, at a cost of K P numbers.

    Attributes:
        blocks: the kept rows, one (K, *shape) per parameter; None where nothing is kept.
        missing: parameters whose rows could not be computed, so that the Grams are not to be used.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], n_tasks: int, keep: bool) -> None:
        self._parameters, self._n_tasks, self._keep = parameters, n_tasks, keep
        self.blocks: list[Tensor | None] = [None] * len(parameters)
        self.missing: set[int] = set()
        self._grams: list[Tensor | None] = [None] * len(parameters)

    def take(self, index: int, rows: Tensor) -> None:
        """Add rows to a parameter. Kept rows of several calls are summed.

        Args:
            index: which of the parameters.
            rows: (K, *shape). They are the caller's no longer.
        """
        if not self._keep:
            self._grams[index] = block_gram(rows)
            return
        block = self.blocks[index]
        self.blocks[index] = rows if block is None else block + rows

    def filled(self) -> list[Tensor]:
        """The kept rows of every parameter, (K, *shape) each. One that got none has zeros from now on."""
        filled = [self._block(index) for index in range(len(self._parameters))]
        self.blocks = list(filled)
        return filled

    def grams(self, scale: float | Tensor = 1.0) -> Tensor:
        """The Gram of every parameter, (L, K, K), float64, on the device of the parameters. 0 for one without rows.

        Args:
            scale: what every row is to be divided by, as for losses that were scaled up.
        """
        if self._keep:
            self._grams = [None if block is None else block_gram(block) for block in self.blocks]
        device = self._parameters[0].device
        zero = torch.zeros(self._n_tasks, self._n_tasks, dtype=torch.float64, device=device)
        return torch.stack([zero if gram is None else gram.to(device) for gram in self._grams]) / scale**2

    def slab(self, part: slice, scale: float | Tensor = 1.0) -> Tensor:
        """J (K, P) of some of the parameters, from kept rows.

        Args:
            part: which of the parameters.
            scale: see `grams`.
        """
        blocks = [self._block(index) for index in self._indices(part)]
        return torch.cat([block.reshape(len(block), -1) for block in blocks], dim=1).float() / scale

    def directions(self, part: slice, weights: Tensor) -> list[Tensor]:
        """d = J'w of some of the parameters, each in its own shape, from kept rows.

        Args:
            part: which of the parameters.
            weights: w, (K,).
        """
        blocks = [self._block(index) for index in self._indices(part)]
        with no_autocast(weights.to(blocks[0])):
            return [torch.tensordot(weights.to(block), block, dims=1) for block in blocks]

    def _indices(self, part: slice) -> range:
        return range(len(self._parameters))[part]

    def _block(self, index: int) -> Tensor:
        block, p = self.blocks[index], self._parameters[index]
        return p.new_zeros(self._n_tasks, *p.shape, requires_grad=False) if block is None else block

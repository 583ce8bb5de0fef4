"""Per-task gradients from one ordinary backward pass, for losses that have samples of their own.

If the loss of task i depends on its own samples only, its gradient of W in y = x W' is dy_i' x_i, over the samples i of
the task. An ordinary backward pass makes dy for the sum of the losses. So a hook at each operation that uses a
parameter can compute all K gradients. One layer's rows exist at a time.

Nothing here can tell that samples are a task's own: BatchNorm, for one, mixes them. So the recorder compares the Grams
with those of `walk` before it uses this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toppo.capture.errors import CaptureError
from toppo.capture.gram import no_autocast
from toppo.capture.graph import Node, Use, uses
from toppo.capture.rows import Rows


class NotPossibleError(Exception):
    """This network or batch has no gradients by samples. The message says why."""


class Samples:
    """Which task each sample of a batch belongs to.

    Args:
        tasks: the task of every sample, (n,), integers from 0 to K - 1.
        n_tasks: K.

    Raises:
        CaptureError: the tasks are no such integers.
    """

    def __init__(self, tasks: Tensor, n_tasks: int) -> None:
        wrong = CaptureError(f"`samples`: give one whole number from 0 to {n_tasks - 1} for each sample of the batch")
        if tasks.is_floating_point() or tasks.is_complex() or tasks.dim() != 1 or not len(tasks):
            raise wrong
        self.n = len(tasks)
        inside = ((tasks >= 0) & (tasks < n_tasks)).all()
        in_order = (tasks[1:] >= tasks[:-1]).all()
        counts = torch.bincount(tasks.clamp(0, n_tasks - 1), minlength=n_tasks)
        # What the host needs comes in one transfer.
        is_inside, is_in_order, *self._sizes = torch.cat([torch.stack([inside, in_order]).to(counts), counts]).tolist()
        if not is_inside:
            raise wrong
        self._order = None if is_in_order else torch.argsort(tasks, stable=True)

    def split(self, values: Tensor, time_first: bool) -> Tensor | tuple[Tensor, ...]:
        """The samples of each task: one tensor (K, n / K, ...) where all have equally many, otherwise K tensors.

        Args:
            values: one or several rows per sample, (n, ...) or (n * m, ...).
            time_first: whether the n samples follow each other, m times: (m, n, ...) or (m * n, ...). Recurrent layers
                and attention lay out sequences so. Otherwise the m rows of a sample follow each other.

        Raises:
            NotPossibleError: the rows are not those of n samples.
        """
        if time_first and values.dim() > 2 and values.shape[1] == self.n:
            values = values.transpose(0, 1)
        if not values.dim() or not self.n or len(values) % self.n:
            raise NotPossibleError(f"an operation has {len(values) if values.dim() else 1} rows for {self.n} samples")
        rows = len(values) // self.n
        if time_first and rows > 1:
            values = values.unflatten(0, (rows, self.n)).transpose(0, 1).flatten(0, 1)
        if self._order is not None:
            values = values.unflatten(0, (self.n, rows))[self._order].flatten(0, 1)
        if len(set(self._sizes)) == 1:
            equal: Tensor = values.unflatten(0, (len(self._sizes), -1))
            return equal
        parts: tuple[Tensor, ...] = values.split([size * rows for size in self._sizes])
        return parts


class Cut(NamedTuple):
    """How one parameter's operations are cut into the samples of each task."""

    samples: Samples
    time_first: bool

    def __call__(self, values: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.samples.split(values, self.time_first)


@contextmanager
def hooked(
    total: Tensor, parameters: Sequence[nn.Parameter], rows: Rows, samples: Samples, time_first: Sequence[bool]
) -> Iterator[None]:
    """A context in which a walk of the sum of the losses gives `rows` the gradients of every task.

    A parameter whose operations have other rows than those of the samples gets no rows, and `rows.missing` says so.

    Args:
        total: sum_i L_i, whose graph is walked.
        parameters: the parameters whose gradients are wanted.
        rows: takes the gradients.
        samples: the task of each sample.
        time_first: for each parameter, how its operations lay out the samples, see `Samples.split`.

    Raises:
        NotPossibleError: a parameter is used by an operation that has no rule here.
    """
    summed: dict[int, Tensor] = {}
    waiting: dict[int, int] = {}
    by_node: dict[Node, list[tuple[int, Use]]] = {}
    found = uses(total, parameters)
    for index, p in enumerate(parameters):
        if found[p]:
            waiting[index] = len(found[p])
        for use in found[p]:
            rule, operation = _RULES.get(use.node.name()), use.node.name().removesuffix("0").removesuffix("Backward")
            if rule is None:
                raise NotPossibleError(f"{operation} uses a parameter")
            if use.transposed and rule is not _linear:
                raise NotPossibleError(f"{operation} uses a parameter with its axes in another order")
            by_node.setdefault(use.node, []).append((index, use))

    def collect(node: Node, served: list[tuple[int, Use]], dy: Tensor | None) -> None:
        with torch.no_grad(), no_autocast(parameters[0]):
            for index, use in served:
                p = parameters[index]
                if dy is not None:
                    try:
                        new = _RULES[node.name()](node, use, dy, Cut(samples, time_first[index]), p).to(p.dtype)
                    except NotPossibleError:
                        continue  # so that this parameter stays in `waiting`
                    summed[index] = summed[index].add_(new) if index in summed else new
                waiting[index] -= 1
                if not waiting[index]:
                    del waiting[index]
                    if index in summed:
                        rows.take(index, summed.pop(index))

    handles = [
        node.register_prehook(lambda grads, node=node, served=served: collect(node, served, grads[0]))
        for node, served in by_node.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    rows.missing |= waiting.keys()


def _products(dy: Tensor, x: Tensor, cut: Cut) -> Tensor:
    """dy_i' x_i for every task, (K, out, in)."""
    a, b = cut(dy), cut(x)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.bmm(a.mT, b)
    return torch.stack([one.mT @ other for one, other in zip(a, b, strict=True)])


def _sums(values: Tensor, shape: torch.Size, cut: Cut) -> Tensor:
    """The sum over each task's samples, and over what broadcasting added, (K, *shape)."""
    if len(values) == 1 or values.dim() <= len(shape):
        raise NotPossibleError("a parameter is added or multiplied along the axis of the samples")
    parts = cut(values)
    if isinstance(parts, Tensor) and parts.shape[parts.dim() - len(shape) :] == shape:
        return parts.sum(dim=tuple(range(1, parts.dim() - len(shape))))
    return torch.stack([part.sum_to_size(shape) for part in parts])


def _linear(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    x, place = (node._saved_mat1, 2) if node.name() == "AddmmBackward0" else (node._saved_self, 1)
    if use.place == place:
        return _products(dy, x, cut) if use.transposed else _products(x, dy, cut)
    if node.name() == "AddmmBackward0" and use.place == 0:
        return _sums(dy, p.shape, cut)
    raise NotPossibleError("a parameter is multiplied from the left")


def _convolution(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    if use.place == 2:
        return torch.stack([part.sum((0, *range(2, part.dim()))) for part in cut(dy)])
    if use.place != 1:
        raise NotPossibleError("a parameter is the input of a convolution")
    weight_of = torch.ops.aten.convolution_backward
    return torch.stack(
        [
            weight_of(
                one, x, p.to(x), None, node._saved_stride, node._saved_padding, node._saved_dilation,
                node._saved_transposed, node._saved_output_padding, node._saved_groups, (False, True, False),
            )[1]
            for one, x in zip(cut(dy), cut(node._saved_input), strict=True)
        ]
    )  # fmt: skip


def _layer_norm(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    if use.place == 1:
        dy = (node._saved_input - node._saved_result1).mul_(node._saved_result2).mul_(dy)
    return _sums(dy, p.shape, cut)


def _embedding(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    if node._saved_scale_grad_by_freq or node._saved_sparse:
        raise NotPossibleError("an embedding is sparse or scales by frequency")
    blocks = p.new_zeros(len(cut(dy)), *p.shape)
    for block, one, index in zip(blocks, cut(dy), cut(node._saved_indices), strict=True):
        block.index_add_(0, index.flatten(), one.flatten(0, -2).to(p.dtype))
    if 0 <= node._saved_padding_idx < len(p):
        blocks[:, node._saved_padding_idx] = 0
    return blocks


def _add(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    return _sums(dy if use.place == 0 else dy * node._saved_alpha, p.shape, cut)


def _multiply(node: Node, use: Use, dy: Tensor, cut: Cut, p: nn.Parameter) -> Tensor:
    return _sums(dy * (node._saved_other if use.place == 0 else node._saved_self), p.shape, cut)


_RULES: dict[str, Callable[[Node, Use, Tensor, Cut, nn.Parameter], Tensor]] = {
    "AddmmBackward0": _linear,
    "MmBackward0": _linear,
    "ConvolutionBackward0": _convolution,
    "NativeLayerNormBackward0": _layer_norm,
    "EmbeddingBackward0": _embedding,
    "AddBackward0": _add,
    "MulBackward0": _multiply,
}
"""Operation -> the gradients (K, *shape) of a parameter that it uses, given the gradient dy of its output."""

"""Autograd's graph, read: which parameters each loss depends on, and which operations use a parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from toppo.capture.losses import TaskLosses

Node = Any
"""An operation of the graph. torch has no public type for it."""


class Use(NamedTuple):
    """One operation that uses a parameter.

    Attributes:
        node: the operation.
        place: which of the operation's inputs the parameter is.
        transposed: whether the operation sees the transpose of the parameter.
    """

    node: Node
    place: int
    transposed: bool


_PASSING = ("TBackward0", "TransposeBackward0", "PermuteBackward0", "ToCopyBackward0")
"""Operations between a parameter and its use that change its orientation or its type, and nothing else."""


def nodes(roots: Sequence[Node]) -> Iterator[Node]:
    """Every operation that the roots depend on, each once."""
    seen = set()
    stack = [root for root in roots if root is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(child for child, _ in node.next_functions if child is not None)


def reached(losses: TaskLosses) -> list[set[Tensor]]:
    """The leaves that each loss depends on, one set per task. An absent task reaches nothing.

    A tensor of losses made by `torch.stack` is looked at entry by entry. Otherwise every entry of a tensor seems to
    depend on all that the tensor depends on.

    Args:
        losses: K losses.
    """
    return [
        set() if root is None else {node.variable for node in nodes([root]) if hasattr(node, "variable")}
        for root in _roots(losses)
    ]


def _roots(losses: TaskLosses) -> list[Node | None]:
    if isinstance(losses.given, Tensor):
        node = losses.given.grad_fn
        if node is not None and node.name() == "StackBackward0" and len(node.next_functions) == len(losses.values):
            return [child for child, _ in node.next_functions]
    return [None if value is None else _root(value) for value in losses.values]


def _root(value: Tensor) -> Node:
    # A loss can be a parameter itself, which has no operation; its view has one that leads to it.
    return value.grad_fn if value.grad_fn is not None else value.view_as(value).grad_fn


def uses(total: Tensor, parameters: Sequence[nn.Parameter]) -> dict[nn.Parameter, list[Use]]:
    """The operations that use each parameter, found by following its transposes and casts.

    Args:
        total: a scalar whose graph is read.
        parameters: the parameters to look for.
    """
    wanted = set(parameters)
    found: dict[nn.Parameter, list[Use]] = {p: [] for p in parameters}
    for node in nodes([total.grad_fn]):
        if node.name() in _PASSING:
            continue
        for place, (child, _) in enumerate(node.next_functions):
            leaf, transposed = child, False
            while leaf is not None and leaf.name() in _PASSING:
                transposed ^= leaf.name() != "ToCopyBackward0"
                leaf = leaf.next_functions[0][0]
            if leaf is not None and getattr(leaf, "variable", None) in wanted:
                found[leaf.variable].append(Use(node, place, transposed))
    return found

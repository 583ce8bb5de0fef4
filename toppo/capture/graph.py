"""Autograd's graph, read: which parameters each loss depends on, and which operations use a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from toppo.capture.losses import TaskLosses

Node = Any
"""An operation of the graph. torch has no public type for it."""


class Use(NamedTuple):
    """One operation that uses a parameter.

    Attributes:
        node: the operation.
        place: which of the operation's inputs the parameter is.
        transposed: whether the operation sees the transpose of a matrix. For other parameters, whether their axes may
            be in another order.
    """

    node: Node
    place: int
    transposed: bool


_PASSING = ("TBackward0", "TransposeBackward0", "PermuteBackward0", "ToCopyBackward0")
"""Operations between a parameter and its use that change its orientation or its type, and nothing else."""


_EDGES = "GradientEdge" in str(inspect.signature(torch.autograd.grad).parameters["outputs"].annotation)
"""Whether this torch walks from an operation, and not from a tensor alone."""


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


def sources(losses: TaskLosses) -> list[tuple[int, Tensor | GradientEdge]]:
    """(i, where a walk for L_i starts), for the tasks whose loss has a graph.

    In a tensor made by `torch.stack` that is the stacked loss itself. A walk from an entry of the tensor would pass
    zeros through the other losses, and zero times infinity is NaN.

    Args:
        losses: K losses.
    """
    stacked = _stacked(losses) if _EDGES else None
    if stacked is None:
        return list(losses.moving)
    return [(i, GradientEdge(node, place)) for i, (node, place) in enumerate(stacked) if node is not None]


def _stacked(losses: TaskLosses) -> Sequence[tuple[Node | None, int]] | None:
    """The operation that made each loss, and which of its outputs it is, where `torch.stack` joined them."""
    node = losses.given.grad_fn if isinstance(losses.given, Tensor) else None
    if node is None or node.name() != "StackBackward0" or len(node.next_functions) != len(losses.values):
        return None
    edges: Sequence[tuple[Node | None, int]] = node.next_functions
    return edges


def _roots(losses: TaskLosses) -> list[Node | None]:
    stacked = _stacked(losses)
    if stacked is not None:
        return [node for node, _ in stacked]
    return [None if value is None or not value.requires_grad else _root(value) for value in losses.values]


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
            leaf, passed = child, []
            while leaf is not None and leaf.name() in _PASSING:
                passed.append(leaf)
                leaf = leaf.next_functions[0][0]
            if leaf is not None and getattr(leaf, "variable", None) in wanted:
                moved = [between for between in passed if between.name() != "ToCopyBackward0"]
                turned = sum(map(_turns, moved)) % 2 == 1
                found[leaf.variable].append(Use(node, place, turned if leaf.variable.dim() == 2 else bool(moved)))
    return found


def _turns(node: Node) -> bool:
    """Whether an operation transposes a matrix.

    Saved axes count from 0 or, modulo 2**64, from the end. The last bit says which axis of a matrix is meant.
    """
    if node.name() == "TransposeBackward0":
        return bool((node._saved_dim0 ^ node._saved_dim1) & 1)
    if node.name() == "PermuteBackward0":
        return bool(node._saved_dims[0] & 1)
    return True

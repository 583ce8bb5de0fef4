"""Which parameters the tasks share: found in the graph of the first recorded step, not asked of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from toppo.capture.errors import CaptureError

WHOLE = "shared"
"""Name of the one side of a recorder that was given no sides."""


@dataclass(frozen=True)
class Sharing:
    """Every parameter of a model, sorted by the tasks that reach it.

    Attributes:
        shared: parameters that two or more tasks' losses depend on.
        task_only: parameter -> the one task whose loss depends on it.
        unused: parameters that no loss depends on.
        frozen: parameters that require no gradient.
        tied: second name of a parameter -> its first name.
    """

    shared: tuple[str, ...]
    task_only: Mapping[str, str]
    unused: tuple[str, ...]
    frozen: tuple[str, ...]
    tied: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """What is stored in a dump, except the shared parameters: those are the columns of its sides."""
        return {
            "task_only": dict(self.task_only),
            "unused": list(self.unused),
            "frozen": list(self.frozen),
            "tied": dict(self.tied),
        }


def named_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """(name -> parameter, second name -> first name of tied ones), without what DDP and torch.compile add to names."""
    named: dict[str, nn.Parameter] = {}
    first: dict[nn.Parameter, str] = {}
    tied = {}
    wrapped = isinstance(getattr(model, "_orig_mod", model), (DistributedDataParallel, nn.DataParallel))
    for long_name, p in model.named_parameters(remove_duplicate=False):
        name = ".".join(part for part in long_name.split(".") if part != "_orig_mod")
        name = name.removeprefix("module.") if wrapped else name
        if p in first:
            tied[name] = first[p]
        else:
            named[name], first[p] = p, name
    return named, tied


def sort_parameters(
    model: nn.Module, tasks: Sequence[str], reached: Sequence[set[Tensor]], live: Mapping[str, npt.NDArray[np.bool_]]
) -> Sharing:
    """Every parameter of a model, sorted by the tasks that reach it.

    The graph sometimes says too much: where the outputs of several heads are concatenated, every loss seems to depend
    on every head. So a gradient that is zero everywhere counts as not reached, but only for a task that has a non-zero
    gradient on a parameter which another task moves too. (With a head that starts at zero, all of the trunk's gradients
    are zero for its task, and the trunk is still shared.)

    Args:
        model: the network.
        tasks: K names.
        reached: the leaves that each task's loss depends on, by the graph.
        live: parameter -> (K,) whether each task's gradient has a number other than zero. A parameter may be missing.
    """
    named, tied = named_parameters(model)
    moving = np.array([live[name] for name in named if name in live]).reshape(-1, len(tasks))
    proven = moving[moving.sum(axis=1) >= 2].any(axis=0)
    shared, only, unused, frozen = [], {}, [], []
    for name, p in named.items():
        by_graph = np.array([p in leaves for leaves in reached])
        told = by_graph & (live.get(name, by_graph) | ~proven)
        by = told if told.any() else by_graph
        if not p.requires_grad:
            frozen.append(name)
        elif not by.any():
            unused.append(name)
        elif by.sum() == 1:
            only[name] = tasks[int(by.argmax())]
        else:
            shared.append(name)
    return Sharing(tuple(shared), only, tuple(unused), tuple(frozen), tied)


def sort_sides(model: nn.Module, sharing: Sharing, sides: Mapping[str, nn.Module] | None) -> dict[str, tuple[str, ...]]:
    """Side -> names of its shared parameters, in the order of the model.

    Args:
        model: the network.
        sharing: what was found about it.
        sides: name -> module of the model; None for one side with everything that is shared.

    Raises:
        CaptureError: nothing is shared, a side shares nothing, or two sides have a parameter in common.
    """
    if not sharing.shared:
        raise CaptureError(
            "no parameter is reached by two tasks, so there is nothing to compare; "
            "compute every task's loss from the same network in the same step"
        )
    if sides is None:
        return {WHOLE: sharing.shared}
    named, _ = named_parameters(model)
    owner: dict[str, str] = {}
    sorted_sides = {}
    for side, module in sides.items():
        own = set(module.parameters())
        names = tuple(name for name in sharing.shared if named[name] in own)
        if not names:
            raise CaptureError(
                f"side {side!r} has no parameter that two tasks reach; leave it out of `sides`, "
                "or give a module of the recorded model that the tasks share"
            )
        for name in names:
            if name in owner:
                raise CaptureError(f"sides {owner[name]!r} and {side!r} both have {name}; give separate modules")
            owner[name] = side
        sorted_sides[side] = names
    return sorted_sides

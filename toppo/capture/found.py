"""What a recorder finds out in its first recorded step: what is shared, and how to get its gradients."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toppo.capture.combining import combination_specs
from toppo.capture.errors import CaptureError
from toppo.capture.graph import reached
from toppo.capture.losses import TaskLosses
from toppo.capture.rows import Rows
from toppo.capture.samples import NotPossibleError, Samples
from toppo.capture.sharing import WHOLE, Sharing, named_parameters, sort_parameters, sort_sides
from toppo.capture.walks import walk
from toppo.capture.ways import Way, WayName, choose
from toppo.combiners import Combiner, make
from toppo.dump import ParameterSlice, ScalarSpec

_MOST_NAMED = 6
"""Parameters of one kind that the summary names. The dump has them all."""

Combiners = str | Combiner | Mapping[str, str | Combiner] | None
"""A spec or a combiner for every side, or one by side; None for the sum of the losses."""


@dataclass(frozen=True)
class Found:
    """The layout of a recorder's gradients.

    Attributes:
        tasks: K names.
        sharing: every parameter, sorted by the tasks that reach it.
        named: name -> parameter, for those that are recorded, side after side.
        columns: side -> its part of `named`.
        outside: name -> parameter, for those that are not recorded and could be reached later.
        reached: for each task, the parameters that its loss depended on in this step.
        doubtful: parameters outside whose gradients were zero for all tasks but one. By the graph, several reach them.
        way: how the gradients are computed.
        combiners: side -> what decides its step.
    """

    tasks: tuple[str, ...]
    sharing: Sharing
    named: Mapping[str, nn.Parameter]
    columns: Mapping[str, slice]
    outside: Mapping[str, nn.Parameter]
    reached: Sequence[set[Tensor]]
    doubtful: tuple[str, ...]
    way: Way
    combiners: Mapping[str, Combiner]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The recorded parameters, side after side."""
        return list(self.named.values())

    def layout(self) -> dict[str, list[ParameterSlice]]:
        """Side -> name and shape of its parameters, as a dump stores them."""
        parts = [ParameterSlice(name, tuple(p.shape)) for name, p in self.named.items()]
        return {side: parts[part] for side, part in self.columns.items()}

    def scalars(self) -> dict[str, ScalarSpec]:
        """The numbers that every record has: the losses, and what the combiners leave."""
        return scalar_specs(self.combiners)

    def attrs(self) -> dict[str, Any]:
        """What the dump says about how it was captured."""
        capture: dict[str, Any] = {"way": self.way.name, "refused": self.way.refused, **self.sharing.to_json()}
        return {"capture": capture, "combiners": {side: c.spec for side, c in self.combiners.items()}}

    def renewed(self, model: nn.Module, losses: TaskLosses) -> tuple[Found, dict[str, str]]:
        """What was found, brought up to date at a later step, and a sentence about each parameter that changed.

        A parameter that was replaced by one of the same name and shape is followed. If there are parameters in doubt,
        this takes one walk of the graph per task, and the graph stays.

        Args:
            model: the network.
            losses: K losses of the later step.
        """
        now, _ = named_parameters(model)
        named, news = dict(self.named), {}
        for name, p in self.named.items():
            other = now.get(name)
            if other is None or other.shape != p.shape:
                news[name] = "is no longer in the model, so its Grams are 0 from here on"
            else:
                named[name] = other
                if not other.requires_grad:
                    news[name] = "is frozen, so its Grams are 0 as long as it is"
        outside = {name: p for name, p in now.items() if name not in named and name not in self.sharing.shared}
        mend = "so it is not in the Grams; record a new dump to have it"
        leaves = _reached(losses, now)
        for name, p in outside.items():
            if name not in self.outside:
                news[name] = f"was added after the first record, {mend}"
                continue
            then = {task for task, own in zip(self.tasks, self.reached, strict=True) if self.outside[name] in own}
            new = [task for task, own in zip(self.tasks, leaves, strict=True) if p in own and task not in then]
            if new and len(then) + len(new) > 1:
                news[name] = f"is now reached by task {new[0]!r} and was not in the first recorded step, {mend}"
        doubtful = {name: outside[name] for name in self.doubtful if name in outside and outside[name].requires_grad}
        for name, live in _live(losses, doubtful).items():
            if live.sum() > 1:
                news[name] = f"now has a gradient of {live.sum()} tasks and had that of one, {mend}"
        return replace(self, named=named), news

    def peak_bytes(self, keep: bool) -> int:
        """The most memory that per-task gradients take in a recorded step: K rows of one layer, or of all.

        Args:
            keep: whether the rows of all layers are kept until the step ends.
        """
        layers = [p.numel() * p.element_size() for p in self.parameters]
        return len(self.tasks) * (max(layers) if self.way.name == "samples" and not keep else sum(layers))

    def summary(self, keep: bool) -> list[str]:
        """What was found, one line per kind of parameter.

        Args:
            keep: see `peak_bytes`.
        """
        sizes = {name: p.numel() for name, p in self.named.items()}
        lines = []
        for side, part in self.columns.items():
            names = list(sizes)[part]
            lines.append(f"{side}: {sum(sizes[n] for n in names):,} numbers in {len(names)} tensors, {_some(names)}")
        sharing = self.sharing
        by_task = {task: [n for n, owner in sharing.task_only.items() if owner == task] for task in self.tasks}
        lines += [f"only {task} reaches: {_some(names)}" for task, names in by_task.items() if names]
        unrecorded = [name for name in sharing.shared if name not in self.named]
        for what, others in (
            ("shared and in no side, so not recorded", unrecorded),
            ("no loss reaches", sharing.unused),
            ("frozen", sharing.frozen),
            ("tied", [f"{second} = {first}" for second, first in sharing.tied.items()]),
        ):
            if others:
                lines.append(f"{what}: {_some(others)}")
        times = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in self.way.seconds.items())
        lines.append(f"way: {self.way.name}{f' ({times} in this step)' if times else ''}")
        lines.append(f"gradients of a recorded step: {self.peak_bytes(keep) / 1e6:.3g} MB at once")
        lines += [f"not {name}: {why}" for name, why in self.way.refused.items()]
        return lines


def find(
    model: nn.Module,
    tasks: Sequence[str],
    losses: TaskLosses,
    samples: Samples | None,
    *,
    sides: Mapping[str, nn.Module] | None,
    combiners: Mapping[str, Combiner],
    way: WayName | None,
    held: Mapping[str, Sequence[ParameterSlice]] | None = None,
) -> Found:
    """What one step says about a model. It walks the graph up to 6 times for each task, and the graph stays.

    Args:
        model: the network.
        tasks: K names.
        losses: K losses of this step.
        samples: the task of each sample, if each task has its own.
        sides: name -> module; None for one side.
        combiners: side -> what decides its step.
        way: the way that the user chose; None for the fastest.
        held: side -> the parameters in the dump that is resumed, if there is one. If the model has them all, they are
            taken. A batch without some tasks could not tell that they are shared.

    Raises:
        CaptureError: nothing is shared, a side is empty or unknown, or the way cannot be used here.
    """
    named, _ = named_parameters(model)
    leaves = _reached(losses, named)
    several = [name for name, p in named.items() if sum(p in own for own in leaves) > 1]
    for name in several:
        if named[name].is_complex():
            raise CaptureError(
                f"parameter {name} is complex, and inner products of complex gradients are not defined here; "
                "hold its real and imaginary part as two parameters, or leave its module out of `sides`"
            )
    sharing = sort_parameters(model, tasks, leaves, _live(losses, {name: named[name] for name in several}))
    kept = None if held is None else _kept(named, held, sides)
    sorted_sides = sort_sides(model, sharing, sides) if kept is None else kept
    recorded = {name: named[name] for names in sorted_sides.values() for name in names}
    ends = np.cumsum([0, *(len(names) for names in sorted_sides.values())]).tolist()
    columns = {side: slice(*ends[i : i + 2]) for i, side in enumerate(sorted_sides)}
    outside = {name: p for name, p in named.items() if name not in recorded and name not in sharing.shared}
    doubtful = tuple(name for name in several if name in outside)
    try:
        chosen = choose(losses, list(recorded.values()), samples, way)
    except NotPossibleError as error:
        raise CaptureError(f"`way={way}`: cannot be used here: {error}; leave `way` out") from error
    return Found(
        tasks=tuple(tasks),
        sharing=sharing,
        named=recorded,
        columns=columns,
        outside=outside,
        reached=leaves,
        doubtful=doubtful,
        way=chosen,
        combiners=combiners,
    )


def _kept(
    named: Mapping[str, nn.Parameter],
    held: Mapping[str, Sequence[ParameterSlice]],
    sides: Mapping[str, nn.Module] | None,
) -> dict[str, tuple[str, ...]] | None:
    """Side -> names of the parameters in a dump; None if they are not those of this model and its sides."""
    parts = [part for of_side in held.values() for part in of_side]
    same = all(part.name in named and named[part.name].shape == tuple(part.shape) for part in parts)
    if not same or list(held) != list(sides or (WHOLE,)):
        return None
    for side, module in (sides or {}).items():
        own = set(module.parameters())
        if not all(named[part.name] in own for part in held[side]):
            return None
    return {side: tuple(part.name for part in of_side) for side, of_side in held.items()}


def _reached(losses: TaskLosses, named: Mapping[str, nn.Parameter]) -> list[set[Tensor]]:
    """The parameters of a model that each loss depends on. Other leaves are not kept alive."""
    own: set[Tensor] = set(named.values())
    return [leaves & own for leaves in reached(losses)]


def _live(losses: TaskLosses, named: Mapping[str, nn.Parameter]) -> dict[str, np.ndarray]:
    """Parameter -> (K,) whether each task's gradient has a number other than zero."""
    if not named:
        return {}
    rows = Rows(list(named.values()), len(losses.values), keep=False)
    walk(losses, list(named.values()), rows)
    squares = torch.diagonal(rows.grams(), dim1=1, dim2=2).cpu().numpy()
    return dict(zip(named, squares != 0, strict=True))


def scalar_specs(combiners: Mapping[str, Combiner]) -> dict[str, ScalarSpec]:
    """The numbers that every record has: the losses, and what the combiner of each side leaves."""
    specs = {"loss": ScalarSpec(("task",), "f8", "loss", "loss L_i of the task")}
    for side, combiner in combiners.items():
        specs |= combination_specs(side, combiner)
    return specs


def combiners_by_side(combiners: Combiners, sides: Collection[str], n_tasks: int) -> dict[str, Combiner]:
    """Side -> a combiner of its own. A side that a mapping leaves out has none: its step is that of the sum.

    Raises:
        CaptureError: there is no such side.
        UsageError: a combiner cannot be used with K tasks.
    """
    wanted = combiners if isinstance(combiners, Mapping) else dict.fromkeys(sides, combiners)
    if unknown := sorted(set(wanted) - set(sides)):
        raise CaptureError(f"`combiner`: there is no side {unknown[0]!r}; the sides are {', '.join(sides)}")
    made = {}
    for side, one in wanted.items():
        if one is not None:
            made[side] = make(one) if isinstance(one, str) else copy.deepcopy(one)
            made[side].check_use(n_tasks)
    return made


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

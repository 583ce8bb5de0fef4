"""What a dump holds: name, dimensions, chunks and units of every array.

Nothing here touches a file. The writer builds what `Layout.arrays` describes, and the reader expects the same.

Words of a dump: a *collect* is one rollout phase of the run. A *snapshot* is everything dumped at one collect, for
several minibatches. A *side* is a named group of shared parameters, such as the actor. A *slab* is J (K, P), the
per-task gradients of one side: row i is g_i. The *Gram stream* holds Grams of every collect, with no slabs.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from toppo.dump.errors import DumpError
from toppo.dump.fields import Fields, shown

SPARE: Final = 32
"""How many scalars can be declared after the first snapshot of a dump."""

MOST_STEPS: Final = 1_000_000
"""The most snapshots (or stream collects) that a dump can hold."""

MOST_ENTRIES: Final = 1_000_000
"""The most minibatches of a snapshot, and the most entries of a stream collect."""

MOST_PARAMETERS: Final = 2**40
"""The most parameters of a side."""

GRAM_TOLERANCE: Final = 1e-5
"""Bound on |G_ij - (J J')_ij| / sqrt(G_ii G_jj) for a lossless slab. A Gram may be accumulated in fp32 chunks."""

ABSENT: Final = -1
"""The flag of a task that took no part in a minibatch, in the array that says whether gradients are finite."""

log = logging.getLogger("toppo.dump")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("header", "parameters", "run")  # an archive has entries of these names beside its arrays
_DTYPES = ("f8", "f4", "i8", "i4", "i1")
_FINITE = "1 if every element of g_i is finite, 0 if not"
_GRADIENT_UNITS = "loss per unit of parameter"


@dataclass(frozen=True)
class ParameterSlice:
    """One named tensor inside the flat gradient of a side.

    Attributes:
        name: the network's name for it, such as "0.weight".
        shape: shape of the tensor.
        offset: index of its first element in the flat (P,) gradient. The writer fills it in.
    """

    name: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def slice(self) -> slice:
        """Where the tensor lies in the flat (P,) gradient."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class ScalarSpec:
    """A small quantity recorded for each minibatch or each snapshot.

    Attributes:
        dims: its dimensions, out of "task" (K), "task_j" (K) and "other" (K - 1, the other tasks in some order); () for
            a single number.
        dtype: "f8", "f4", "i8", "i4" or "i1". Values that were never written read as NaN, or as -1 for integers.
        units: its unit, for labels.
        description: one line about it.
    """

    dims: tuple[str, ...] = ("task",)
    dtype: str = "f8"
    units: str = "1"
    description: str = ""


@dataclass(frozen=True)
class StepAxis:
    """What a run counts its progress in.

    Attributes:
        name: name of the array that holds the steps, such as "step" or "env_steps".
        label: the word for an axis of a figure, such as "environment steps". Its last word is the unit.
    """

    name: str = "step"
    label: str = "steps"

    @property
    def units(self) -> str:
        """The unit, such as "steps"."""
        return self.label.rpartition(" ")[2]


ENV_STEPS: Final = StepAxis("env_steps", "environment steps")
"""The axis of reinforcement learning: steps of the environment, in rollout phases (collects) that have a number."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store.

    Attributes:
        dims: dimension names.
        shape: allocated shape.
        dtype: numpy type code, or "str".
        units: its unit, for labels.
        description: one line about it.
        steps: how many leading axes are cut into chunks of length 1, so that a commit adds whole chunks. It is 0 for a
            coordinate.
        by_row: whether each chunk is a shard with one chunk per task, so that one task's row can be read alone.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str
    description: str
    steps: int = 1
    by_row: bool = False

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of one file of the array."""
        return (1,) * self.steps + tuple(max(1, n) for n in self.shape[self.steps :])

    @property
    def grows(self) -> bool:
        """Whether the leading axis counts snapshots or stream collects."""
        return self.dims[0] in ("snapshot", "stream_collect")

    def chunk_keys(self, name: str, step: int) -> list[str]:
        """Key of every chunk that the snapshot (or collect) with index `step` adds to the array `name`."""
        grid = [0] * len(self.dims)
        grid[0] = step
        keys = []
        for inner in range(self.shape[1] if self.steps == 2 else 1):
            if self.steps == 2:
                grid[1] = inner
            keys.append(f"{name}/c.{'.'.join(map(str, grid))}")
        return keys


@dataclass(frozen=True)
class Layout:
    """Everything about the arrays of a store, except how many snapshots there are.

    Attributes:
        tasks: K task names.
        sides: side name -> its parameters in flat order, with their offsets.
        minibatches: M, dumped minibatches per snapshot.
        minibatch_scalars: quantities recorded for each dumped minibatch.
        snapshot_scalars: quantities recorded once per snapshot.
        slabs: whether the gradients are kept. If not, only their Grams are.
        keepbits: how many of the 23 mantissa bits of the slabs are kept; None for all.
        stream_entries: Grams per side and collect in the Gram stream; None for no stream.
        layer_grams: whether the Gram of every layer is kept. A layer is one named tensor of a side.
        absences: whether it is kept which tasks took part in a minibatch.
        step: what the run counts its progress in.
        late: minibatch scalar -> index of the first snapshot that has it, for those declared after the first snapshot.
        spare: how many scalars can be declared so.
    """

    tasks: tuple[str, ...]
    sides: Mapping[str, tuple[ParameterSlice, ...]]
    minibatches: int
    minibatch_scalars: Mapping[str, ScalarSpec] = field(default_factory=dict)
    snapshot_scalars: Mapping[str, ScalarSpec] = field(default_factory=dict)
    slabs: bool = True
    keepbits: int | None = None
    stream_entries: int | None = None
    layer_grams: bool = False
    absences: bool = False
    late: Mapping[str, int] = field(default_factory=dict)
    spare: int = 0
    step: StepAxis = ENV_STEPS  # that of every dump made before a dump could have another one

    def parameters(self, side: str) -> int:
        """P, the length of a side's flat gradient."""
        return sum(part.size for part in self.sides[side])

    def layers(self, side: str) -> list[str]:
        """L names, of the tensors of a side in flat order."""
        return [part.name for part in self.sides[side]]

    @property
    def has_collects(self) -> bool:
        """Whether every snapshot has the number of its collect (rollout phase)."""
        return self.step.name == ENV_STEPS.name

    @property
    def stream_step(self) -> str:
        """Name of the array that holds the steps of the Gram stream."""
        return f"stream_{self.step.name}"

    @property
    def step_arrays(self) -> tuple[str, ...]:
        """Names of the arrays that say when something was recorded. For xarray they are coordinates."""
        return (self.step.name, *(("collect",) if self.has_collects else ()), self.stream_step)

    @property
    def gram_tolerance(self) -> float:
        """How far G_ij may be from the Gram of the stored slab, over sqrt(G_ii G_jj). Rounding to b bits adds 2^-b."""
        return GRAM_TOLERANCE + (0.0 if self.keepbits is None else 2.0**-self.keepbits)

    def sizes(self, snapshots: int, collects: int) -> dict[str, int]:
        """Dimension name -> its length, given how many snapshots and stream collects there are."""
        K = len(self.tasks)
        sizes = {"snapshot": snapshots, "minibatch": self.minibatches, "task": K, "task_j": K, "other": K - 1}
        sizes |= {f"{side}_param": self.parameters(side) for side in self.sides}
        if self.layer_grams:
            sizes |= {f"{side}_layer": len(parts) for side, parts in self.sides.items()}
        if self.stream_entries is not None:
            sizes |= {"stream_collect": collects, "stream_entry": self.stream_entries}
        return sizes

    def arrays(self, snapshots: int, collects: int) -> dict[str, ArraySpec]:
        """Array name -> its specification, for every array of the store.

        Args:
            snapshots: length of the snapshot axis.
            collects: length of the axis of the Gram stream.

        Raises:
            DumpError: two quantities have the same array name.
        """
        sizes = self.sizes(snapshots, collects)
        specs: dict[str, ArraySpec] = {}

        def add(name: str, dims: tuple[str, ...], dtype: str, units: str, description: str, **how: Any) -> None:
            if name in specs or name in _RESERVED or (name in sizes and dims != (name,)):
                raise DumpError(f"the name {name!r} is taken by the dump's own layout; rename that side or scalar")
            specs[name] = ArraySpec(dims, tuple(sizes[d] for d in dims), dtype, units, description, **how)

        add("snapshot", ("snapshot",), "i8", "1", "index of the snapshot", steps=0)
        add("minibatch", ("minibatch",), "i8", "1", "index of the dumped minibatch within its snapshot", steps=0)
        add("task", ("task",), "str", "", "task i", steps=0)
        add("task_j", ("task_j",), "str", "", "task j, second index of a Gram", steps=0)
        step = self.step
        when = "environment (or optimiser) steps taken" if step.name == ENV_STEPS.name else step.label
        add(step.name, ("snapshot",), "i8", step.units, f"{when} at the snapshot")
        if self.has_collects:
            add("collect", ("snapshot",), "i8", "1", "index of the collect at which the snapshot was taken")
        per_minibatch = ("snapshot", "minibatch")
        if self.absences:
            add("present", (*per_minibatch, "task"), "i1", "1", "1 if the task took part in the minibatch, 0 if not")
        for side in self.sides:
            if self.slabs:
                dims = (*per_minibatch, "task", f"{side}_param")
                add(f"{side}_grad", dims, "f4", _GRADIENT_UNITS, "slab: row i is g_i", steps=2, by_row=True)
            square = (*per_minibatch, "task", "task_j")
            add(f"{side}_gram", square, "f8", f"({_GRADIENT_UNITS})^2", "G_ij = <g_i, g_j>")
            if self.layer_grams:
                layer = f"{side}_layer"
                add(layer, (layer,), "str", "", f"name of the layer: one tensor of the {side}", steps=0)
                by_layer = (*per_minibatch, layer, "task", "task_j")
                add(f"{side}_layer_gram", by_layer, "f8", f"({_GRADIENT_UNITS})^2", "G_ij = <g_i, g_j> of each layer")
            add(f"{side}_finite", (*per_minibatch, "task"), "i1", "1", _FINITE)
            if self.stream_entries is not None:
                stream = ("stream_collect", "stream_entry", "task", "task_j")
                add(f"{side}_gram_stream", stream, "f8", f"({_GRADIENT_UNITS})^2", "G_ij = <g_i, g_j>, every collect")
        if self.stream_entries is not None:
            add(self.stream_step, ("stream_collect",), "i8", step.units, f"{step.label} at the collect")
        for name, spec in self.minibatch_scalars.items():
            add(name, (*per_minibatch, *spec.dims), spec.dtype, spec.units, spec.description)
        for name, spec in self.snapshot_scalars.items():
            add(name, ("snapshot", *spec.dims), spec.dtype, spec.units, spec.description)
        return specs

    def coordinate(self, spec: ArraySpec) -> list[Any]:
        """Values of a coordinate (an array with `steps` 0): names of tasks or layers, or indices from 0."""
        if spec.dtype != "str":
            return list(range(spec.shape[0]))
        (dim,) = spec.dims
        return list(self.tasks) if dim in ("task", "task_j") else self.layers(dim.removesuffix("_layer"))

    def check(self) -> None:
        """Raise DumpError if the layout cannot be stored. The message names the cause."""
        if not self.tasks or len(set(self.tasks)) != len(self.tasks) or not all(isinstance(t, str) for t in self.tasks):
            raise DumpError(f"`tasks={list(self.tasks)}`: give one or more distinct names")
        if not self.sides:
            raise DumpError("a dump needs at least one side; give `sides` as {name: parameters}")
        for name in (*self.sides, *self.minibatch_scalars, *self.snapshot_scalars, self.step.name):
            if not _NAME.fullmatch(name):
                raise DumpError(
                    f"{name!r} cannot name a side, scalar or step axis; use letters, digits and underscores"
                )
        for side, parts in self.sides.items():
            if not all(0 < part.size <= MOST_PARAMETERS for part in parts) or not parts:
                raise DumpError(
                    f"side {side!r} has no parameters, or an empty one; give a positive number or ParameterSlices"
                )
            if len({part.name for part in parts}) != len(parts):
                raise DumpError(f"side {side!r} has two parameters of one name; give each its own")
        for name, spec in (*self.minibatch_scalars.items(), *self.snapshot_scalars.items()):
            known = set(spec.dims) <= {"task", "task_j", "other"} and len(set(spec.dims)) == len(spec.dims)
            if spec.dtype not in _DTYPES or not known:
                raise DumpError(
                    f"scalar {name!r}: dims are out of task, task_j, other; dtype is one of {', '.join(_DTYPES)}"
                )
        if not 1 <= self.minibatches <= MOST_ENTRIES:
            raise DumpError(f"`minibatches={self.minibatches}`: must be 1 or more, and at most {MOST_ENTRIES}")
        if self.keepbits is not None and not 1 <= self.keepbits <= 23:
            raise DumpError(f"`keepbits={self.keepbits}`: must lie in 1..23 (fp32 has 23 mantissa bits)")
        if self.stream_entries is not None and not 1 <= self.stream_entries <= MOST_ENTRIES:
            raise DumpError(
                f"the Gram stream needs 1 or more Grams per collect (at most {MOST_ENTRIES}), got {self.stream_entries}"
            )
        if not self.late.keys() <= self.minibatch_scalars.keys() or len(self.late) > self.spare:
            raise DumpError(f"`late` has {', '.join(self.late)}: not scalars, or more than the {self.spare} spare ones")
        self.arrays(1, 1)

    def check_recordable(self) -> None:
        """Check the layout, and that `DumpWriter.record` can tell the slab of a side from every other value."""
        self.check()
        taken = {"self", "step", "present", *self.minibatch_scalars, *self.snapshot_scalars}
        for side in self.sides:
            if side in taken:
                raise DumpError(f"side {side!r} has the name of another value of a record; give the side another name")

    def to_json(self) -> dict[str, Any]:
        """The layout as values that JSON can hold. `from_json` turns them back into a layout.

        What a layout of the first dumps did not have is left out where it has its default.
        """
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        record["late"] = dict(self.late)
        for name in ("layer_grams", "absences", "late", "spare"):
            if not record[name]:
                del record[name]
        record["step"] = {"name": self.step.name, "label": self.step.label}
        if self.step == ENV_STEPS:
            del record["step"]
        record["tasks"] = list(self.tasks)
        record["sides"] = {s: [[p.name, list(p.shape), p.offset] for p in parts] for s, parts in self.sides.items()}
        for kind in ("minibatch_scalars", "snapshot_scalars"):
            record[kind] = {
                n: {"dims": list(s.dims), "dtype": s.dtype, "units": s.units, "description": s.description}
                for n, s in record[kind].items()
            }
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` wrote, checked as one that is about to be written.

        Raises:
            ValueError: an item is missing, of another type or out of bounds, or the layout cannot be stored.
        """
        given = Fields(record, "layout")
        sides = given.inner("sides")
        layout = cls(
            tasks=given.texts("tasks"),
            sides={side: _slices(sides.rows(side), f"layout.sides.{side}") for side in sides},
            minibatches=given.integer("minibatches", 1, MOST_ENTRIES),
            minibatch_scalars=_scalars(given.inner("minibatch_scalars")),
            snapshot_scalars=_scalars(given.inner("snapshot_scalars")),
            slabs=given.flag("slabs"),
            keepbits=given.integer_or_none("keepbits", 1, 23),
            stream_entries=given.integer_or_none("stream_entries", 1, MOST_ENTRIES),
            layer_grams="layer_grams" in given and given.flag("layer_grams"),
            absences="absences" in given and given.flag("absences"),
            late=_late(given.inner("late")) if "late" in given else {},
            spare=given.integer("spare", 0, MOST_ENTRIES) if "spare" in given else 0,
            step=_step_axis(given.inner("step")) if "step" in given else ENV_STEPS,
        )
        layout.check()
        return layout


def fill(dtype: str) -> float | int:
    """What a value that was never written reads as: NaN, or -1 for a whole number."""
    return float("nan") if dtype[0] == "f" else -1


def with_offsets(parameters: int | Sequence[ParameterSlice]) -> tuple[ParameterSlice, ...]:
    """The parameters of a side in flat order, with their offsets. A bare number P becomes one slice called "all"."""
    parts = [ParameterSlice("all", (int(parameters),))] if isinstance(parameters, int) else list(parameters)
    placed, offset = [], 0
    for part in parts:
        placed.append(replace(part, shape=tuple(int(n) for n in part.shape), offset=offset))
        offset += part.size
    return tuple(placed)


def _slices(rows: list[Any], place: str) -> tuple[ParameterSlice, ...]:
    parts = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise ValueError(f"{place} holds {shown(row)}, expected [name, shape, offset]")
        name, shape, offset = row
        sizes = [*shape, offset] if isinstance(shape, list) else [None]
        if not isinstance(name, str) or not all(type(n) is int and 0 <= n <= MOST_PARAMETERS for n in sizes):
            raise ValueError(f"{place} holds {shown(row)}, expected [name, shape, offset]")
        parts.append(ParameterSlice(name, tuple(shape), offset))
    if with_offsets(parts) != tuple(parts) or sum(part.size for part in parts) > MOST_PARAMETERS:
        raise ValueError(f"{place}: its parameters do not lie one after the other")
    return tuple(parts)


def _late(given: Fields) -> dict[str, int]:
    return {name: given.integer(name, 0, MOST_STEPS) for name in given}


def _step_axis(given: Fields) -> StepAxis:
    return StepAxis(given.text("name"), given.text("label"))


def _scalars(given: Fields) -> dict[str, ScalarSpec]:
    specs = {}
    for name in given:
        item = given.inner(name)
        specs[name] = ScalarSpec(item.texts("dims"), item.text("dtype"), item.text("units"), item.text("description"))
    return specs

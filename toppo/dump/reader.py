"""Reading a dump: labelled arrays of exactly what is committed. A live run and an archive are read in the same way."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toppo.common.names import closest
from toppo.dump import numerics
from toppo.dump.errors import DumpError
from toppo.dump.schema import ArraySpec, ParameterSlice, StepAxis
from toppo.dump.source import Source

if TYPE_CHECKING:
    import xarray as xr


class Dump:
    """What a run had committed when its dump was opened. `open_dump` makes this object.

    Read it like a mapping from names to labelled arrays: `dump["critic_gram"]`, `"loss" in dump`, `list(dump)`. It
    stays the same while the run goes on. `open_dump(dump)` shows what was added.

    Args:
        source: the Zarr store or archive to read from. `open_dump` finds it.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __repr__(self) -> str:
        planned = "" if self.complete or self.n_planned is None else f" of {self.n_planned}"
        parts = (
            f"{self.n_snapshots}{planned} snapshots with {self.n_minibatches} minibatches each",
            f"{len(self.tasks)} tasks",
            f"sides {' and '.join(self.sides)}",
            "with slabs" if self.has_slabs else "without slabs",
            "complete" if self.complete else "not complete",
        )
        return f"<Dump {self.path}: {', '.join(parts)}>"

    def __fspath__(self) -> str:
        return self.path

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.array(name)

    def __contains__(self, name: object) -> bool:
        return name in self.source.specs

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @property
    def path(self) -> str:
        """Path or URL."""
        return self.source.where

    @property
    def tasks(self) -> tuple[str, ...]:
        """K task names."""
        return self.source.header.layout.tasks

    @property
    def sides(self) -> tuple[str, ...]:
        """Side names."""
        return tuple(self.source.header.layout.sides)

    @property
    def n_snapshots(self) -> int:
        """S, the number of committed snapshots. A snapshot is what is recorded at one rollout phase (a collect)."""
        return self.source.header.n_committed

    @property
    def n_planned(self) -> int | None:
        """Number of planned snapshots; None if the run did not know it."""
        return self.source.header.n_planned

    @property
    def n_minibatches(self) -> int:
        """M, the number of dumped minibatches per snapshot."""
        return self.source.header.layout.minibatches

    @property
    def n_stream(self) -> int:
        """Number of committed collects of the Gram stream, which holds Grams of every collect."""
        return self.source.header.stream_committed

    @property
    def complete(self) -> bool:
        """Whether the run ended and its dump was closed. If not, the dump is being written or was interrupted."""
        return self.source.header.complete

    @property
    def has_slabs(self) -> bool:
        """Whether the dump holds gradients (slabs). If not, it holds only their Grams."""
        return self.source.header.layout.slabs

    @property
    def attrs(self) -> dict[str, Any]:
        """What the run recorded about itself: configuration, seed, versions."""
        return dict(self.source.header.attrs)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every array, coordinates included."""
        return tuple(self.source.specs)

    @property
    def step(self) -> StepAxis:
        """What the run counts its progress in: name of its array, and the word for an axis."""
        return self.source.header.layout.step

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """(S,) steps taken at each snapshot, in the unit of `step`."""
        return self.values(self.step.name)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(S, M, K), whether each task took part in each minibatch. All True where no task could be absent."""
        if "present" in self:
            return np.asarray(self.values("present") != 0)
        return np.ones((self.n_snapshots, self.n_minibatches, len(self.tasks)), bool)

    def parameters(self, side: str) -> list[ParameterSlice]:
        """The named tensors of a side's flat gradient, in flat order, with their offsets.

        Raises:
            DumpError: the dump has no such side.
        """
        if side not in self.sides:
            raise self._no_such("side", side, self.sides, f"its sides are {', '.join(self.sides)}")
        return list(self.source.header.layout.sides[side])

    def parameter(self, side: str, name: str) -> ParameterSlice:
        """One named tensor of a side.

        Raises:
            DumpError: the dump has no such side, or the side has no such parameter.
        """
        parts = {part.name: part for part in self.parameters(side)}
        if name not in parts:
            raise DumpError(
                f"{self.path}: side {side!r} has no parameter {name!r}; it has {', '.join(parts)}",
                path=self.path,
                allowed=parts,
            )
        return parts[name]

    def values(self, name: str) -> npt.NDArray[Any]:
        """All of an array as plain numpy, in memory. This is the cheapest way to read a small array.

        Raises:
            DumpError: the dump has no such array, or the array is damaged.
        """
        spec = self._spec(name)
        return self.source.read(name, (slice(None),) * len(spec.dims))

    def dataset(self) -> xr.Dataset:
        """Every array with its coordinates. Only what is indexed is read."""
        return self._labelled.copy()  # shallow: what is loaded of it is not kept here

    def array(self, name: str) -> xr.DataArray:
        """One array with its coordinates. Only what is indexed is read. `dump[name]` does the same.

        Raises:
            DumpError: the dump has no such array, or nothing of it is committed yet.
        """
        self._require(name)
        return self._labelled[name].copy(deep=False)

    def gram(self, side: str) -> xr.DataArray:
        """G = J J' of every dumped minibatch: (snapshot, minibatch, task, task_j), fp64, in memory.

        Args:
            side: name of a group of parameters, one of `sides`.

        Raises:
            DumpError: the dump has no such side or no snapshot yet, or the array is damaged.
        """
        self.parameters(side)
        return self.array(f"{side}_gram").load()

    def gram_stream(self, side: str) -> xr.DataArray:
        """The Grams of every collect: (stream_collect, stream_entry, task, task_j), fp64, in memory.

        Args:
            side: name of a group of parameters, one of `sides`.

        Raises:
            DumpError: the dump has no such side or no Gram stream, or the array is damaged.
        """
        self.parameters(side)
        if self.source.header.layout.stream_entries is None:
            raise DumpError(f"{self.path}: has no Gram stream; record the run with one", path=self.path)
        return self.array(f"{side}_gram_stream").load()

    def slab(self, side: str, snapshot: int, minibatch: int, parameter: str | None = None) -> xr.DataArray:
        """J, the per-task gradients of one dumped minibatch: (task, {side}_param), fp32, in memory.

        Args:
            side: name of a group of parameters, one of `sides`.
            snapshot: index of the snapshot, 0 to S - 1.
            minibatch: index of the minibatch within the snapshot, 0 to M - 1.
            parameter: the columns of this named tensor only; None for all.

        Raises:
            DumpError: the dump has no slabs, no such side, snapshot, minibatch or parameter, or the array is damaged.
        """
        from toppo.dump.labelled import slab

        cut = slice(None) if parameter is None else self.parameter(side, parameter).slice
        values = self.slab_values(side, snapshot, minibatch)[:, cut]
        return slab(self.source, side, snapshot, minibatch, values, parameter)

    def slab_values(self, side: str, snapshot: int, minibatch: int) -> npt.NDArray[np.float32]:
        """The result of `slab` as a plain numpy array J (K, P). In a loop over many slabs this is faster.

        Raises:
            DumpError: see `slab`.
        """
        self.parameters(side)
        self.require_slabs()
        self._check_place(snapshot, minibatch)
        return self.source.read(f"{side}_grad", (snapshot, minibatch, slice(None), slice(None)))

    def iter_slabs(self, side: str) -> Iterator[tuple[int, int, xr.DataArray]]:
        """(snapshot, minibatch, slab) of every dumped minibatch in order. Only one slab is in memory at a time.

        Raises:
            DumpError: see `slab`.
        """
        for snapshot in range(self.n_snapshots):
            for minibatch in range(self.n_minibatches):
                yield snapshot, minibatch, self.slab(side, snapshot, minibatch)

    def layer_names(self, side: str) -> list[str]:
        """L names of the layers of a side, in the order of its Grams by layer. A layer is one named tensor.

        Raises:
            DumpError: the dump has no such side.
        """
        return [part.name for part in self.parameters(side)]

    def has_layers(self, side: str) -> bool:
        """Whether the dump has the Gram of each layer of a side, or slabs to compute them from.

        Raises:
            DumpError: the dump has no such side.
        """
        self.parameters(side)
        return self.has_slabs or f"{side}_layer_gram" in self

    def layer_gram(self, side: str, parameter: str, snapshot: int, minibatch: int) -> xr.DataArray:
        """The Gram of one layer, which is one named tensor: (task, task_j), fp64, in memory.

        Over all layers of a side, these Grams sum to the side's Gram, up to rounding.

        Args:
            side: name of a group of parameters, one of `sides`.
            parameter: name of the tensor, one of `layer_names`.
            snapshot: index of the snapshot, 0 to S - 1.
            minibatch: index of the minibatch within the snapshot, 0 to M - 1.

        Raises:
            DumpError: the dump has neither Grams by layer nor slabs, no such side, snapshot, minibatch or parameter, or
                the array is damaged.
        """
        from toppo.dump.labelled import layer_gram

        part = self.parameter(side, parameter)
        self.require_layers(side)
        self._check_place(snapshot, minibatch)
        if f"{side}_layer_gram" in self:
            G = self.layer_gram_values(side, snapshot, minibatch)[self.layer_names(side).index(parameter)]
        else:
            G = numerics.gram(self.slab_values(side, snapshot, minibatch)[:, part.slice])
        return layer_gram(self.source, side, snapshot, minibatch, G, parameter)

    def layer_gram_values(self, side: str, snapshot: int, minibatch: int) -> npt.NDArray[np.float64]:
        """The Grams of all layers of one dumped minibatch as a plain numpy array (L, K, K).

        Raises:
            DumpError: see `layer_gram`.
        """
        self.require_layers(side)
        self._check_place(snapshot, minibatch)
        if f"{side}_layer_gram" in self:
            return self.source.read(f"{side}_layer_gram", (snapshot, minibatch, *(slice(None),) * 3))
        return numerics.layer_grams(self.slab_values(side, snapshot, minibatch), self.parameters(side))

    def layer_grams(self, side: str) -> xr.DataArray:
        """The Grams of all layers and dumped minibatches, in memory.

        If the dump has slabs and no Grams by layer, every slab is read and one is in memory at a time.

        Args:
            side: name of a group of parameters, one of `sides`.

        Returns:
            (snapshot, minibatch, {side}_layer, task, task_j), fp64.

        Raises:
            DumpError: see `layer_gram`; or the dump has no snapshot yet.
        """
        from toppo.dump.labelled import layer_grams

        self.require_layers(side)
        self._require(f"{side}_gram")
        if f"{side}_layer_gram" in self:
            return layer_grams(self.source, side, self.values(f"{side}_layer_gram"))
        K = len(self.tasks)
        values = np.empty((self.n_snapshots, self.n_minibatches, len(self.parameters(side)), K, K))
        for place in np.ndindex(*values.shape[:2]):
            values[place] = self.layer_gram_values(side, *place)
        return layer_grams(self.source, side, values)

    @functools.cached_property
    def _labelled(self) -> xr.Dataset:
        from toppo.dump.labelled import dataset

        return dataset(self.source)

    def require_slabs(self) -> None:
        """Raise DumpError if the dump holds no gradients. The message says what to do."""
        if not self.has_slabs:
            raise self._lacks("gradient slabs", "Grams alone", ("slabs", " with `slabs`"))

    def require_layers(self, side: str) -> None:
        """Raise DumpError if the dump has neither Grams by layer nor slabs, or no such side."""
        if not self.has_layers(side):
            raise self._lacks("Grams by layer", "whole Grams alone", ("layer Grams", ""))

    def _lacks(self, needed: str, held: str, mend: tuple[str, str]) -> DumpError:
        what, how = mend
        mended = (
            f"use the dump it was exported from, or export that dump again{how}"
            if self.source.kind == "archive"
            else f"record the run with {what}"
        )
        return DumpError(
            f"{self.path}: this needs {needed}, but the {self.source.kind} holds {held}; {mended}", path=self.path
        )

    def _check_place(self, snapshot: int, minibatch: int) -> None:
        for what, index, length in (
            ("snapshot", snapshot, self.n_snapshots),
            ("minibatch", minibatch, self.n_minibatches),
        ):
            if not 0 <= index < length:
                raise DumpError(
                    f"{self.path}: has no {what} {index}, it holds {length}; count from 0",
                    path=self.path,
                    allowed=range(length),
                )

    def _spec(self, name: str) -> ArraySpec:
        spec = self.source.specs.get(name)
        if spec is None and name.endswith("_grad") and name.removesuffix("_grad") in self.sides:
            self.require_slabs()
        if spec is None:
            raise self._no_such("array", name, self.names, f"it has {', '.join(self.names)}")
        return spec

    def _require(self, name: str) -> None:
        spec = self._spec(name)
        if spec.grows and spec.shape[0] == 0:
            what = "snapshot" if spec.dims[0] == "snapshot" else "stream collect"
            mend = "record a longer run" if self.complete else "wait for the run's first one, or resume it"
            raise DumpError(f"{self.path}: holds no {what} yet; {mend}", path=self.path)

    def _no_such(self, kind: str, name: object, known: tuple[str, ...], listing: str) -> DumpError:
        near = closest(str(name), known)
        hint = f"did you mean {near!r}?" if near else listing
        return DumpError(f"{self.path}: has no {kind} {name!r}; {hint}", path=self.path, allowed=known)

"""Reading a dump: labelled arrays, lazily, of exactly what is committed. A live run and an archive read the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from toppo.dump import numerics
from toppo.dump.files import Files, LocalFiles, RemoteFiles, is_url, local_path
from toppo.dump.schema import ArraySpec, DumpError, Header, ParameterSlice
from toppo.dump.zarr_store import ROOT, Index, ZarrSource

if TYPE_CHECKING:
    import xarray as xr


class Source(Protocol):
    """The committed arrays of a dump or an archive."""

    @property
    def kind(self) -> str:
        """Word for messages: dump or archive."""

    @property
    def where(self) -> str:
        """Path or URL."""

    @property
    def header(self) -> Header:
        """Layout, attributes and counts."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """Every array, cut to what is committed."""

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        """Part of an array; DumpError where it is missing or damaged."""

    def open(self, name: str) -> None:
        """Raise DumpError if an array cannot be opened at all."""

    def size(self) -> int:
        """Bytes on disk."""

    def damaged_metadata(self) -> list[tuple[str, str]]:
        """(array, what) for metadata that differs from what was written."""

    def leftovers(self) -> list[str]:
        """Lines about files that belong to nothing committed."""


class Dump:
    """What was committed when it was opened; make it with `open_dump`. Open it again to see what a live run added."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __repr__(self) -> str:
        state = "complete" if self.complete else "open"
        what = f"{self.n_snapshots} snapshots, {len(self.tasks)} tasks, {'/'.join(self.sides)}"
        return f"<Dump {self.path}: {what}, {state}>"

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
        """S, the committed snapshots."""
        return self.source.header.n_committed

    @property
    def n_planned(self) -> int | None:
        """Planned snapshots, None if the run did not know."""
        return self.source.header.n_planned

    @property
    def n_minibatches(self) -> int:
        """M, dumped minibatches per snapshot."""
        return self.source.header.layout.minibatches

    @property
    def n_stream(self) -> int:
        """Committed collects of the Gram stream."""
        return self.source.header.stream_committed

    @property
    def complete(self) -> bool:
        """Whether the run ended and was closed; if not, it is being written or was interrupted."""
        return self.source.header.complete

    @property
    def has_slabs(self) -> bool:
        """Whether gradients are here, or their Grams alone."""
        return self.source.header.layout.slabs

    @property
    def attrs(self) -> dict[str, Any]:
        """What the run recorded about itself: configuration, seed, versions."""
        return dict(self.source.header.attrs)

    @property
    def names(self) -> tuple[str, ...]:
        """Every array, coordinates included."""
        return tuple(self.source.specs)

    @property
    def env_steps(self) -> npt.NDArray[np.int64]:
        """(S,) environment steps at each snapshot."""
        return self.values("env_steps")

    def parameters(self, side: str) -> list[ParameterSlice]:
        """The named tensors of a side's flat gradient, in order, with offsets.

        Raises:
            DumpError: no such side.
        """
        if side not in self.sides:
            raise DumpError(f"{self.path}: has no side {side!r}; its sides are {', '.join(self.sides)}")
        return list(self.source.header.layout.sides[side])

    def parameter(self, side: str, name: str) -> ParameterSlice:
        """One named tensor of a side.

        Raises:
            DumpError: no such side or parameter.
        """
        parts = {part.name: part for part in self.parameters(side)}
        if name not in parts:
            raise DumpError(f"{self.path}: side {side!r} has no parameter {name!r}; it has {', '.join(parts)}")
        return parts[name]

    def values(self, name: str) -> npt.NDArray[Any]:
        """All of an array as plain numpy, in memory; the cheap way to small ones.

        Raises:
            DumpError: no such array, or it is damaged.
        """
        spec = self._spec(name)
        return self.source.read(name, (slice(None),) * len(spec.dims))

    def dataset(self) -> xr.Dataset:
        """Every array with its coordinates, read when indexed; what is not indexed is not read."""
        from toppo.dump.labelled import dataset

        return dataset(self.source)

    def array(self, name: str) -> xr.DataArray:
        """One array with its coordinates, read when indexed.

        Raises:
            DumpError: no such array, or nothing of it is committed yet.
        """
        self._require(name)
        return self.dataset()[name]

    def gram(self, side: str) -> xr.DataArray:
        """Grams of every dumped minibatch, (snapshot, minibatch, task, task_j) fp64, in memory.

        Raises:
            DumpError: no such side, no snapshot yet, or damage.
        """
        self.parameters(side)
        return self.array(f"{side}_gram").load()

    def gram_stream(self, side: str) -> xr.DataArray:
        """The Gram stream, (stream_collect, stream_entry, task, task_j) fp64, in memory.

        Raises:
            DumpError: no such side, no stream, or damage.
        """
        self.parameters(side)
        if self.source.header.layout.stream_entries is None:
            raise DumpError(f"{self.path}: has no Gram stream; record the run with one")
        return self.array(f"{side}_gram_stream").load()

    def slab(self, side: str, snapshot: int, minibatch: int, parameter: str | None = None) -> xr.DataArray:
        """Per-task gradients of one dumped minibatch, (task, {side}_param) fp32, in memory.

        Args:
            side: which.
            snapshot: 0 to S - 1.
            minibatch: 0 to M - 1.
            parameter: the columns of this named tensor only.

        Raises:
            DumpError: no slabs here, an index out of range, no such side or parameter, or damage.
        """
        from toppo.dump.labelled import slab

        cut = slice(None) if parameter is None else self.parameter(side, parameter).slice
        values = self.slab_values(side, snapshot, minibatch)[:, cut]
        return slab(self.source, side, snapshot, minibatch, values, parameter)

    def slab_values(self, side: str, snapshot: int, minibatch: int) -> npt.NDArray[np.float32]:
        """`slab` as a plain (K, P) numpy array: what a loop over many wants."""
        self.parameters(side)
        self.require_slabs()
        for what, index, length in (
            ("snapshot", snapshot, self.n_snapshots),
            ("minibatch", minibatch, self.n_minibatches),
        ):
            if not 0 <= index < length:
                raise DumpError(f"{self.path}: has no {what} {index}, it holds {length}; count from 0")
        return self.source.read(f"{side}_grad", (snapshot, minibatch, slice(None), slice(None)))

    def iter_slabs(self, side: str) -> Iterator[tuple[int, int, xr.DataArray]]:
        """(snapshot, minibatch, slab) for every dumped minibatch in order, one slab in memory at a time."""
        for snapshot in range(self.n_snapshots):
            for minibatch in range(self.n_minibatches):
                yield snapshot, minibatch, self.slab(side, snapshot, minibatch)

    def layer_gram(self, side: str, parameter: str, snapshot: int, minibatch: int) -> xr.DataArray:
        """Gram of the columns of one named tensor, (task, task_j) fp64; these sum to the side's Gram.

        Raises:
            DumpError: see `slab`.
        """
        from toppo.dump.labelled import square

        cut = self.slab(side, snapshot, minibatch, parameter)
        return square(cut, numerics.gram(cut.values))

    def require_slabs(self) -> None:
        """Raise DumpError, naming the mend, if gradients are not here."""
        if not self.has_slabs:
            mend = (
                "use the dump it was exported from, or export with --slabs"
                if self.source.kind == "archive"
                else "record the run with slabs"
            )
            raise DumpError(
                f"{self.path}: this needs gradient slabs and the {self.source.kind} holds Grams alone; {mend}"
            )

    def _spec(self, name: str) -> ArraySpec:
        spec = self.source.specs.get(name)
        if spec is None and name.endswith("_grad") and name.removesuffix("_grad") in self.sides:
            self.require_slabs()
        if spec is None:
            raise DumpError(f"{self.path}: has no array {name!r}; it has {', '.join(self.names)}")
        return spec

    def _require(self, name: str) -> None:
        spec = self._spec(name)
        if spec.grows and spec.shape[0] == 0:
            what = "snapshot" if spec.dims[0] == "snapshot" else "stream collect"
            mend = "record a longer run" if self.complete else "wait for the run's first one, or resume it"
            raise DumpError(f"{self.path}: holds no {what} yet; {mend}")


def open_dump(path: str | os.PathLike[str]) -> Dump:
    """Open what a run recorded, also while it is being written.

    Args:
        path: a run directory holding dump.zarr, the .zarr itself, an exported .h5 archive, or an fsspec URL of a store.

    Raises:
        DumpError: not a dump, or one of another schema version.
    """
    if is_url(path):
        url = str(path).rstrip("/")
        return Dump(ZarrSource(_first_with_root(RemoteFiles(url), RemoteFiles(url + "/dump.zarr"))))
    place = local_path(path)
    if place.is_file():
        from toppo.dump.archive import H5Source

        return Dump(H5Source(place))
    if not place.is_dir():
        raise DumpError(f"{place}: no such file or directory; give a run directory, its dump.zarr or an exported .h5")
    return Dump(ZarrSource(_first_with_root(LocalFiles(place), LocalFiles(place / "dump.zarr"))))


def _first_with_root(files: Files, nested: Files) -> Files:
    return nested if files.read(ROOT) is None and nested.read(ROOT) is not None else files

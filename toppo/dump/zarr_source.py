"""Reading the Zarr store of a dump, with checks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toppo.dump import zarr_store
from toppo.dump.errors import DumpError
from toppo.dump.files import Files
from toppo.dump.schema import array_checksum, checksum
from toppo.dump.source import Index, guarded
from toppo.dump.zarr_store import ROOT

if TYPE_CHECKING:
    from zarr import Array, Group


class ZarrSource:
    """The committed part of a dump, read from its Zarr store. It is a `Source`.

    Args:
        files: where the dump is.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: this is not a dump, its schema version is another one, or its header is damaged.
    """

    kind = "dump"

    def __init__(self, files: Files) -> None:
        self.files = files
        self.where = files.where
        self.header = zarr_store.read_header(files)
        self.specs = self.header.layout.arrays(*self.header.committed)
        self._arrays: dict[str, Array[Any]] = {}

    @functools.cached_property
    def _group(self) -> Group:
        return zarr_store.open_group(self.files, read_only=True)

    def _zarr_array(self, name: str) -> Array[Any]:
        if name not in self._arrays:
            self._arrays[name] = guarded(
                lambda: zarr_store.open_array(self._group, name), f"{self.where}: {name}", self.where
            )
        return self._arrays[name]

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        spec = self.specs[name]
        bounded = tuple(_bounded(i, n) for i, n in zip(index, spec.shape, strict=True))
        if spec.steps:
            missing = self.files.missing(self._touched(name, bounded))
            if missing:
                raise DumpError(
                    f"{self.where}: {missing[0]} is missing or empty, though committed; see `toppo-diag verify`",
                    path=self.where,
                )
        steps = ", ".join(f"{dim} {i}" for dim, i in zip(spec.dims, index, strict=True) if isinstance(i, int))
        what = f"{self.where}: {name}{', ' + steps if steps else ''}"
        array = self._zarr_array(name)
        values = guarded(lambda: np.asarray(array.oindex[bounded]), what, self.where)
        return np.array(values.tolist()) if spec.dtype == "str" else values

    def _touched(self, name: str, index: Index) -> list[str]:
        spec = self.specs[name]
        steps = [np.atleast_1d(np.arange(spec.shape[axis])[index[axis]]) for axis in range(spec.steps)]
        keys = []
        for step in steps[0]:
            of_step = spec.chunk_keys(name, int(step))
            keys += of_step if spec.steps == 1 else [of_step[int(inner)] for inner in steps[1]]
        return keys

    def open(self, name: str) -> None:
        self._zarr_array(name)

    def size(self) -> int:
        return self.files.size()

    def damaged_metadata(self) -> list[tuple[str, str]]:
        root, layout = zarr_store.read_root(self.files), self.header.layout
        documents = zarr_store.read_documents(self.files, layout)
        attributes = root["attributes"]
        damage = []
        if attributes.get("checksum") != checksum(attributes):
            damage.append((ROOT, "the header does not match its checksum"))
        sums = attributes.get("array_checksums")
        for name, spec in self.specs.items():
            document = documents.get(name)
            room = layout.arrays(*self.header.allocated)[name].shape[0]
            if document is None:
                damage.append((name, "its zarr.json is missing"))
            elif not isinstance(sums, dict) or array_checksum(document) != sums.get(name):
                damage.append((name, "its zarr.json does not match its checksum"))
            elif not spec.shape[0] <= document["shape"][0] <= room:
                damage.append((name, f"length {document['shape'][0]} does not fit the {spec.shape[0]} committed"))
        if not damage and root != zarr_store.root_document(self.header, documents):
            damage.append((ROOT, "differs from what the writer wrote"))
        return damage

    def leftovers(self) -> list[str]:
        known = {f"{name}/zarr.json" for name in self.specs} | {ROOT}
        for name, spec in self.specs.items():
            steps = range(spec.shape[0]) if spec.steps else [0]
            known.update(key for step in steps for key in spec.chunk_keys(name, step))
        extra = sum(key not in known for key in self.files.listing())
        return (
            [
                f"{extra} files belong to nothing committed: they are being written, or a crash left them "
                "(resume clears them)"
            ]
            if extra
            else []
        )


def _bounded(index: int | slice | npt.NDArray[np.int64], length: int) -> int | slice | npt.NDArray[np.int64]:
    """An index cut to the committed `length`, in a form that Zarr takes. Zarr takes no slice with a step."""
    if not isinstance(index, slice):
        return index
    bounds = index.indices(length)
    return slice(bounds[0], bounds[1]) if bounds[2] == 1 else np.arange(*bounds)

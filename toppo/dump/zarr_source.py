"""Reading the Zarr store of a dump, with checks.

Chunks are read and decoded here, by the format and without Zarr: nothing that a file says can choose a codec.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks, zarr_store
from toppo.dump.documents import misfit, parse
from toppo.dump.errors import DumpError
from toppo.dump.files import Files
from toppo.dump.indexing import Indices, as_indices, pick, stacked
from toppo.dump.schema import ArraySpec, array_checksum, checksum
from toppo.dump.source import Index, guarded
from toppo.dump.zarr_store import ROOT


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
        self._checked: set[str] = set()

    def open(self, name: str) -> None:
        if name in self._checked:
            return
        data = self.files.read(f"{name}/zarr.json")
        if data is None:
            raise DumpError(f"{self.where}: {name} cannot be read (it has no metadata document)", path=self.where)
        document = parse(data, self.where, f"{name}/zarr.json")
        if (problem := misfit(document, self.specs[name])) is not None:
            raise DumpError(
                f"{self.where}: {name} cannot be read ({problem}); see `toppo-diag verify`", path=self.where
            )
        self._checked.add(name)

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        spec = self.specs[name]
        steps = ", ".join(f"{dim} {i}" for dim, i in zip(spec.dims, index, strict=True) if isinstance(i, int))
        what = f"{self.where}: {name}{', ' + steps if steps else ''}"
        return guarded(lambda: self._read(name, spec, as_indices(index, spec.shape)), what, self.where)

    def _read(self, name: str, spec: ArraySpec, index: Indices) -> npt.NDArray[Any]:
        self.open(name)
        if spec.steps == 0:
            return pick(self._coordinate(name, spec), index)
        keep = list(index)
        axes = [np.atleast_1d(np.arange(n)[i]) for i, n in zip(index, spec.shape, strict=True)]
        for axis in range(spec.steps):  # taken below, one chunk after the other
            keep[axis] = 0 if isinstance(index[axis], int) else slice(None)
        read = self._slabs if spec.by_row else self._plain
        lengths = [len(axis) for axis in axes[: spec.steps]]
        values = stacked(read(name, spec, axes, index[spec.steps :]), math.prod(lengths))
        if values is None:
            values = pick(np.empty((0, *spec.shape[spec.steps :]), spec.dtype), (slice(None), *index[spec.steps :]))
        values = values.reshape((*lengths, *values.shape[1:]))
        done = (slice(None),) * (values.ndim - spec.steps)
        return pick(values, (*keep[: spec.steps], *done))

    def _plain(
        self, name: str, spec: ArraySpec, axes: list[npt.NDArray[np.int64]], rest: Indices
    ) -> Iterator[npt.NDArray[Any]]:
        keys = [spec.chunk_keys(name, int(step))[0] for step in axes[0]]
        for key, data in zip(keys, self.files.read_all(keys), strict=True):
            values = chunks.decode(self._present(key, data), spec.dtype, spec.chunks[1:])
            yield pick(values[tuple(slice(n) for n in spec.shape[1:])], rest)

    def _slabs(
        self, name: str, spec: ArraySpec, axes: list[npt.NDArray[np.int64]], rest: Indices
    ) -> Iterator[npt.NDArray[Any]]:
        K, P = spec.shape[2:]
        rows = axes[2]
        keys = [spec.chunk_keys(name, int(step))[int(inner)] for step in axes[0] for inner in axes[1]]
        whole = self.files.read_all(keys) if 2 * len(rows) > K else None
        for key in keys:
            slab = np.empty((len(rows), P), np.float32)
            size = chunks.index_size(K)
            if whole is not None:
                data = self._present(key, next(whole))
                places = chunks.decode_index(data[-size:], K)
                for at, row in enumerate(rows):
                    first, length = places[row]
                    slab[at] = chunks.decode_row(data[first : first + length], P)
            else:
                places = chunks.decode_index(self._present(key, self.files.read_part(key, -size, size)), K)
                for at, row in enumerate(rows):
                    data = self._present(key, self.files.read_part(key, *places[row]))
                    slab[at] = chunks.decode_row(data, P)
            task = 0 if isinstance(rest[0], int) else slice(None)
            yield pick(slab, (task, rest[1]))

    def _present(self, key: str, data: bytes | None) -> bytes:
        if not data:
            raise DumpError(
                f"{self.where}: {key} is missing or empty, though committed; see `toppo-diag verify`", path=self.where
            )
        return data

    def _coordinate(self, name: str, spec: ArraySpec) -> npt.NDArray[Any]:
        """Its one chunk is as long as the array was when it was made."""
        length = spec.shape[0]
        if length == 0:
            return np.empty(0, spec.dtype)
        data = self._present(f"{name}/c.0", self.files.read(f"{name}/c.0"))
        if spec.dtype == "str":
            return chunks.decode_text(data, length)
        values = chunks.decode(data, spec.dtype, (-1,))
        if len(values) < length:
            raise ValueError(f"holds {len(values)} numbers, expected {length}")
        return values[:length]

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
            elif (problem := misfit(document, spec)) is not None:
                damage.append((name, problem))
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

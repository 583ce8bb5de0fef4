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
from toppo.dump.documents import Document, misfit, parse
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
        keep = tuple(0 if isinstance(i, int) else slice(None) for i in index[: spec.steps])
        axes = [np.atleast_1d(np.arange(n)[i]) for i, n in zip(index[:3], spec.shape[:3], strict=True)]
        read = self._slabs if spec.by_row else self._plain
        lengths = [len(axis) for axis in axes[: spec.steps]]
        values = stacked(read(name, spec, axes, index[spec.steps :]), math.prod(lengths))
        if values is None:
            values = pick(np.empty((0, *spec.shape[spec.steps :]), spec.dtype), (slice(None), *index[spec.steps :]))
        values = values.reshape((*lengths, *values.shape[1:]))
        done = (slice(None),) * (values.ndim - spec.steps)
        return pick(values, (*keep, *done))

    def _plain(
        self, name: str, spec: ArraySpec, axes: list[npt.NDArray[np.int64]], rest: Indices
    ) -> Iterator[npt.NDArray[Any]]:
        inside = tuple(slice(n) for n in spec.shape[1:])  # a chunk is never shorter than 1
        keys = (spec.chunk_keys(name, int(step))[0] for step in axes[0])
        for key, data in self.files.read_all(keys):
            yield pick(chunks.decode(self._present(key, data), spec.dtype, spec.chunks[1:])[inside], rest)

    def _slabs(
        self, name: str, spec: ArraySpec, axes: list[npt.NDArray[np.int64]], rest: Indices
    ) -> Iterator[npt.NDArray[Any]]:
        K, P = spec.shape[2:]
        rows = axes[2]
        task = 0 if isinstance(rest[0], int) else slice(None)
        size = chunks.index_size(K)
        keys = (spec.chunk_keys(name, int(step))[int(inner)] for step in axes[0] for inner in axes[1])
        if 2 * len(rows) > K:
            for key, data in self.files.read_all(keys):
                whole = self._present(key, data)
                places = chunks.decode_index(whole[-size:], K)
                parts = (whole[first : first + length] for first, length in (places[row] for row in rows))
                yield pick(chunks.decode_rows(parts, len(rows), P), (task, rest[1]))
        else:
            for key in keys:
                places = chunks.decode_index(self._present(key, self.files.read_part(key, -size, size)), K)
                parts = (self.files.read_part(key, *places[row]) or b"" for row in rows)
                yield pick(chunks.decode_rows(parts, len(rows), P), (task, rest[1]))

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
        attributes = root["attributes"]
        damage: list[tuple[str, str]] = []
        documents: dict[str, Document] = {}
        for name in self.specs:
            try:
                documents |= zarr_store.read_documents(self.files, [name])
            except DumpError as error:
                damage.append((name, str(error).removeprefix(f"{self.where}: ")))
        if attributes.get("checksum") != checksum(attributes):
            damage.append((ROOT, "the header does not match its checksum"))
        sums = attributes.get("array_checksums")
        for name, spec in self.specs.items():
            document = documents.get(name)
            room = layout.arrays(*self.header.allocated)[name].shape[0]
            if document is None:
                if not any(name == damaged for damaged, _ in damage):
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
        extra = sum(not self._belongs(key) for key in self.files.listing())
        return (
            [
                f"{extra} files belong to nothing committed: they are being written, or a crash left them "
                "(resume clears them)"
            ]
            if extra
            else []
        )

    def _belongs(self, key: str) -> bool:
        """Whether a file is part of what is committed."""
        name, _, file = key.rpartition("/")
        spec = self.specs.get(name)
        if spec is None or file == "zarr.json":
            return key == ROOT or spec is not None
        if spec.steps == 0:
            return file == "c.0"
        step = file.split(".")[1] if file.startswith("c.") else ""
        return step.isdecimal() and int(step) < spec.shape[0] and key in spec.chunk_keys(name, int(step))

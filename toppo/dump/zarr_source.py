"""Reading the Zarr store of a dump, with checks.

Chunks are read and decoded here, by the format and without Zarr: nothing that a file says can choose a codec.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks, manifest, zarr_store
from toppo.dump.documents import Document, misfit, parse
from toppo.dump.errors import DumpError
from toppo.dump.files import Files
from toppo.dump.header import NO_LINK, array_checksum, checksum
from toppo.dump.indexing import Indices, as_indices, pick, places, stacked
from toppo.dump.schema import ArraySpec, fill
from toppo.dump.source import Index, guarded
from toppo.dump.zarr_store import ROOT

_MANIFESTS = 10_000
"""How many manifests are kept in memory, unless one reading needs more. The largest have about 2 kB."""


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
        self._stored = manifest.stored(self.header, self.header.committed)
        self._positions = manifest.positions(self.header.layout) if self.header.version > 1 else {}
        self._manifests: dict[tuple[str, int], bytes | None] = {}
        self._checked: set[str] = set()

    def open(self, name: str) -> None:
        if name in self._checked:
            return
        data = self.files.read(f"{name}/zarr.json")
        if data is None:
            raise DumpError(f"{self.where}: {name} cannot be read (it has no metadata document)", path=self.where)
        document = parse(data, self.where, f"{name}/zarr.json")
        if (problem := misfit(document, self._stored[name])) is not None:
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
        axes = [places(i, n) for i, n in zip(index[:3], spec.shape[:3], strict=True)]
        self._load_manifests(spec.dims[0], [int(step) for step in axes[0]])
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
        first = self.header.layout.late.get(name, 0)
        written = self.files.read_all(spec.chunk_keys(name, int(step))[0] for step in axes[0] if step >= first)
        for step in axes[0]:
            if step < first:
                yield pick(np.full(spec.shape[1:], fill(spec.dtype), spec.dtype), rest)
                continue
            key, data = next(written)
            values = chunks.decode(self._present(key, data), spec.dtype, spec.shape[1:])
            self._compare(name, spec, key, {0: chunks.checksum(self._present(key, data))})
            yield pick(values, rest)

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
                rows_at = chunks.decode_index(whole[-size:], K)
                ends = {int(row): sum(rows_at[row]) for row in rows}
                sums = {row: whole[max(0, end - manifest.SUM) : end] for row, end in ends.items()}
                self._compare(name, spec, key, sums)
                parts = (whole[first : first + length] for first, length in (rows_at[row] for row in rows))
                yield pick(chunks.decode_rows(parts, len(rows), P), (task, rest[1]))
        else:
            for key in keys:
                rows_at = chunks.decode_index(self._present(key, self.files.read_part(key, -size, size)), K)
                read = [self.files.read_part(key, *rows_at[row]) or b"" for row in rows]
                sums = {int(row): chunks.checksum(part) for row, part in zip(rows, read, strict=True)}
                self._compare(name, spec, key, sums)
                yield pick(chunks.decode_rows(read, len(rows), P), (task, rest[1]))

    def _load_manifests(self, axis: str, steps: list[int]) -> None:
        """Have the manifests of these steps in memory, to compare what is read with them."""
        if self.header.version == 1:
            return
        missing = [step for step in dict.fromkeys(steps) if (axis, step) not in self._manifests]
        if len(self._manifests) + len(missing) > _MANIFESTS:
            self._manifests.clear()
        name = manifest.ARRAYS[axis]
        keys = (self._stored[name].chunk_keys(name, step)[0] for step in missing)
        for step, (key, data) in zip(missing, self.files.read_all(keys), strict=True):
            self._manifests[axis, step] = self._decoded(axis, step, self._present(key, data))

    def _decoded(self, axis: str, step: int, data: bytes) -> bytes:
        name = manifest.ARRAYS[axis]
        content = chunks.decode(data, "u1", self._stored[name].chunks[1:]).tobytes()
        if not manifest.belongs(axis, step, content):
            raise ValueError(f"{name} {step} is not the manifest of this step")
        return content

    def _compare(self, name: str, spec: ArraySpec, key: str, sums: Mapping[int, bytes]) -> None:
        """Raise ValueError unless a chunk, or its rows with these indices, are those that were committed here."""
        step, inner = (int(part) for part in (*key.rpartition("/")[2].split("."), "0")[1:3])
        content = self._manifests.get((spec.dims[0], step))
        if content is None:  # a dump of version 1, or `bindings` has reported this manifest
            return
        first = self._positions[name] + (inner * spec.shape[2] * manifest.SUM if spec.by_row else 0)
        for row, found in sums.items():
            at = first + row * manifest.SUM
            if content[at : at + manifest.SUM] != found:
                raise ValueError(f"{key} is sound and not what was committed here")

    def links(self, snapshots: int, collects: int) -> dict[str, str]:
        """Axis -> the link (hex) after that many snapshots and stream collects.

        Raises:
            DumpError: the manifest that holds it is damaged.
        """
        found = {}
        for axis, count in (("snapshot", snapshots), ("stream_collect", collects)):
            if self.header.version > 1 and manifest.ARRAYS[axis] in self._stored:
                what = f"{self.where}: the manifest of {axis} {count - 1}"
                guarded(partial(self._load_manifests, axis, [count - 1][:count]), what, self.where)
                content = self._manifests[axis, count - 1] if count else None
                found[axis] = NO_LINK if content is None else manifest.link(content).hex()
        return found

    def bindings(self) -> Iterator[tuple[str, int | None, str]]:
        committed = dict(zip(manifest.ARRAYS, self.header.committed, strict=True))
        for axis, name in manifest.ARRAYS.items():
            if name not in self._stored:
                continue
            before: bytes | None = manifest.START
            for step in range(committed[axis]):
                try:
                    self._load_manifests(axis, [step])
                except (DumpError, ValueError) as error:
                    self._manifests[axis, step] = before = None
                    yield name, step, str(error)
                    continue
                content = self._manifests[axis, step] or b""
                if before not in (None, manifest.before(content)):
                    yield name, step, "does not follow the manifest before it"
                before = manifest.link(content)
            if before is not None and before.hex() != self.header.chain.get(axis, NO_LINK):
                yield name, None, "its last link is not the one in the header"

    def _present(self, key: str, data: bytes | None) -> bytes:
        if not data:
            raise DumpError(
                f"{self.where}: {key} is missing or empty, though committed; see `toppo-diag verify`", path=self.where
            )
        return data

    def _coordinate(self, name: str, spec: ArraySpec) -> npt.NDArray[Any]:
        """Its first chunk is as long as the array was when it was made. The next ones follow if the array grew."""
        length = spec.shape[0]
        if length == 0:
            return np.empty(0, spec.dtype)
        data = self._present(f"{name}/c.0", self.files.read(f"{name}/c.0"))
        if spec.dtype == "str":
            return chunks.decode_text(data, length)
        parts = [chunks.decode(data, spec.dtype, (-1,))]
        while (there := sum(map(len, parts))) < length:
            data = self.files.read(f"{name}/c.{len(parts)}") or b""
            if not data:
                raise ValueError(f"holds {there} numbers, expected {length}")
            parts.append(chunks.decode(data, spec.dtype, (-1,)))
        return np.concatenate(parts)[:length]

    def size(self) -> int:
        return self.files.size()

    def damaged_metadata(self) -> list[tuple[str, str]]:
        root = zarr_store.read_root(self.files)
        attributes = root["attributes"]
        damage: list[tuple[str, str]] = []
        documents: dict[str, Document] = {}
        for name in self._stored:
            try:
                documents |= zarr_store.read_documents(self.files, [name])
            except DumpError as error:
                damage.append((name, str(error).removeprefix(f"{self.where}: ")))
        if attributes.get("checksum") != checksum(attributes):
            damage.append((ROOT, "the header does not match its checksum"))
        sums = attributes.get("array_checksums")
        allocated = manifest.stored(self.header, self.header.allocated)
        for name, spec in self._stored.items():
            document = documents.get(name)
            room = allocated[name].shape[0]
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
        spec = self._stored.get(name)
        if spec is None or file == "zarr.json":
            return key == ROOT or spec is not None
        if spec.steps == 0:
            return file == "c.0" or (spec.grows and file.removeprefix("c.").isdecimal())
        step = file.split(".")[1] if file.startswith("c.") else ""
        return step.isdecimal() and int(step) < spec.shape[0] and key in spec.chunk_keys(name, int(step))

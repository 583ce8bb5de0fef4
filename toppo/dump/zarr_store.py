"""A dump as a Zarr v3 store: building its arrays, writing its root document (the commit), reading it back with checks.

Every chunk carries a CRC-32C, and the root document a checksum over all metadata, so that damage is found and not read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from toppo.dump.files import Files
from toppo.dump.schema import ArraySpec, DumpError, Header, Layout, array_checksum, checksum

if TYPE_CHECKING:
    from zarr import Array, Group

ROOT = "zarr.json"
T = TypeVar("T")
Document = dict[str, Any]
Index = tuple[int | slice | npt.NDArray[np.int64], ...]


def create_array(files: Files, name: str, spec: ArraySpec) -> None:
    """Make one preallocated array; chunks are written later, its length never changes until the dump is closed."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    attributes: dict[str, Any] = {"units": spec.units, "description": spec.description}
    if spec.steps:
        attributes["coordinates"] = "env_steps collect" if spec.dims[0] == "snapshot" else "stream_env_steps"
    if name in ("env_steps", "collect", "stream_env_steps"):
        del attributes["coordinates"]
    fill: Any = "" if spec.dtype == "str" else float("nan") if spec.dtype.startswith("f") else -1
    chunks = spec.chunks
    compressors: list[Any] = [Crc32cCodec()]
    if spec.by_row:
        chunks = (*chunks[: spec.steps], 1, *chunks[spec.steps + 1 :])
        compressors.insert(0, BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"))
    zarr.create_array(
        files.store(read_only=False),
        name=name,
        shape=spec.shape,
        chunks=chunks,
        shards=spec.chunks if spec.by_row else None,
        dtype=str if spec.dtype == "str" else spec.dtype,
        compressors=compressors,
        fill_value=fill,
        dimension_names=spec.dims,
        attributes=attributes,
        # "." keeps an array's chunks in one directory: fewer directories to make, list and fsync
        chunk_key_encoding={"name": "default", "separator": "."},
        overwrite=True,
    )


def create_arrays(files: Files, layout: Layout, allocated: tuple[int, int]) -> None:
    """Make every array of a layout, with its coordinates written."""
    specs = layout.arrays(*allocated)
    for name, spec in specs.items():
        create_array(files, name, spec)
    group = _open(files, read_only=False)
    for name, spec in specs.items():
        if spec.steps == 0 and spec.shape[0]:
            array = _array(group, name).with_config({"write_empty_chunks": True})
            array[...] = np.array(layout.coordinate(spec))


def read_documents(files: Files, layout: Layout) -> dict[str, Document]:
    """Metadata document of every array, by name; an array without one is left out.

    Raises:
        DumpError: a document is not JSON.
    """
    documents = {}
    for name in layout.arrays(1, 1):
        data = files.read(f"{name}/zarr.json")
        if data is not None:
            documents[name] = _parse(data, files.where, f"{name}/zarr.json")
    return documents


def set_length(files: Files, documents: Mapping[str, Document], lengths: tuple[int, int]) -> dict[str, Document]:
    """Give growing arrays room for (snapshots, collects): one small file each, no chunk is touched."""
    changed = dict(documents)
    for name, document in documents.items():
        dims = document["dimension_names"]
        if dims[0] not in ("snapshot", "stream_collect"):
            continue
        length = lengths[0] if dims[0] == "snapshot" else lengths[1]
        if document["shape"][0] != length:
            changed[name] = {**document, "shape": [length, *document["shape"][1:]]}
            files.replace(f"{name}/zarr.json", json.dumps(changed[name], indent=2).encode())
    return changed


def root_document(header: Header, documents: Mapping[str, Document]) -> Document:
    """The root zarr.json. That of a complete dump consolidates the arrays' metadata; a live one must not."""
    root: Document = {"attributes": header.to_json(documents), "zarr_format": 3, "node_type": "group"}
    if header.complete:
        metadata = {name: documents[name] for name in sorted(documents)}
        root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return root


def write_root(files: Files, header: Header, documents: Mapping[str, Document]) -> None:
    """Commit: replace the root document whole."""
    files.replace(ROOT, json.dumps(root_document(header, documents), indent=2, allow_nan=False).encode())


def read_root(files: Files) -> Document:
    """The root zarr.json.

    Raises:
        DumpError: there is none, or it is not a group's.
    """
    data = files.read(ROOT)
    if data is None:
        raise DumpError(
            f"{files.where}: not a dump (no {ROOT} there); give a run directory, its dump.zarr or an exported .h5"
        )
    root = _parse(data, files.where, ROOT)
    if not isinstance(root.get("attributes"), dict):
        raise DumpError(f"{files.where}: not a toppo dump ({ROOT} has no attributes); give a run's dump.zarr")
    return root


def read_header(files: Files) -> Header:
    """How much is committed, and the layout.

    Raises:
        DumpError: not a dump, or one of another schema version.
    """
    return Header.from_json(read_root(files)["attributes"], files.where)


class ZarrSource:
    """The committed part of a dump, read from its Zarr store."""

    kind = "dump"

    def __init__(self, files: Files) -> None:
        self.files = files
        self.where = files.where
        self.header = read_header(files)
        self.specs = self.header.layout.arrays(*self.header.committed)
        self._arrays: dict[str, Array[Any]] = {}

    @functools.cached_property
    def _group(self) -> Group:
        return _open(self.files, read_only=True)

    def _zarr_array(self, name: str) -> Array[Any]:
        if name not in self._arrays:
            self._arrays[name] = guarded(lambda: _array(self._group, name), f"{self.where}: {name}")
        return self._arrays[name]

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        """Part of an array, cut to what is committed.

        Args:
            name: array.
            index: one int, slice or integer array per axis.

        Raises:
            DumpError: a chunk is missing or damaged; the line names array and snapshot.
        """
        spec = self.specs[name]
        bounded = tuple(_bounded(i, n) for i, n in zip(index, spec.shape, strict=True))
        if spec.steps:
            missing = self.files.missing(self._touched(name, bounded))
            if missing:
                raise DumpError(
                    f"{self.where}: {missing[0]} is missing or empty, though committed; see `toppo-diag verify`"
                )
        steps = ", ".join(f"{dim} {i}" for dim, i in zip(spec.dims, index, strict=True) if isinstance(i, int))
        what = f"{self.where}: {name}{', ' + steps if steps else ''}"
        array = self._zarr_array(name)
        values = guarded(lambda: np.asarray(array.oindex[bounded]), what)
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
        """Raise DumpError if an array cannot be opened at all."""
        self._zarr_array(name)

    def size(self) -> int:
        """Bytes on disk."""
        return self.files.size()

    def damaged_metadata(self) -> list[tuple[str, str]]:
        """(array, what) for metadata that differs from what was written."""
        root, layout = read_root(self.files), self.header.layout
        documents = read_documents(self.files, layout)
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
        if not damage and root != root_document(self.header, documents):
            damage.append((ROOT, "it is not what the writer wrote"))
        return damage

    def leftovers(self) -> list[str]:
        """A line about files that belong to nothing committed, if there are any."""
        known = {f"{name}/zarr.json" for name in self.specs} | {ROOT}
        for name, spec in self.specs.items():
            steps = range(spec.shape[0]) if spec.steps else [0]
            known.update(key for step in steps for key in spec.chunk_keys(name, step))
        extra = sum(key not in known for key in self.files.listing())
        return (
            [f"{extra} files belong to nothing committed: being written, or left by a crash (resume clears them)"]
            if extra
            else []
        )


def guarded(read: Callable[[], T], what: str) -> T:
    """The result of `read`; whatever a codec makes of damaged bytes becomes one line naming `what`."""
    try:
        return read()
    except DumpError:
        raise
    except Exception as error:  # codecs answer damage with any of half a dozen types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DumpError(f"{what} cannot be read ({reason}); see `toppo-diag verify`") from error


def _open(files: Files, *, read_only: bool) -> Group:
    import zarr

    # consolidated metadata is for other tools: a live dump has none, a stale one would hide snapshots
    return zarr.open_group(files.store(read_only=read_only), mode="r" if read_only else "r+", use_consolidated=False)


def _array(group: Group, name: str) -> Array[Any]:
    from zarr import Array

    array = group[name]
    if not isinstance(array, Array):
        raise DumpError(f"{name} is a group, not an array")
    return array


def _bounded(index: int | slice | npt.NDArray[np.int64], length: int) -> int | slice | npt.NDArray[np.int64]:
    """An index into the committed `length`, in a form that Zarr takes: it knows no steps but 1."""
    if not isinstance(index, slice):
        return index
    bounds = index.indices(length)
    return slice(bounds[0], bounds[1]) if bounds[2] == 1 else np.arange(*bounds)


def _parse(data: bytes, where: str, key: str) -> Document:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise DumpError(f"{where}: {key} is not JSON ({error}); restore it from a copy") from error
    if not isinstance(document, dict):
        raise DumpError(f"{where}: {key} is not a JSON object; restore it from a copy")
    return document

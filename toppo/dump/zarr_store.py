"""A dump as a Zarr v3 store: making its arrays, and writing and reading its metadata.

Replacing the root document is the commit. Every chunk carries a CRC-32C. The root document carries a checksum of all
metadata. So damage is found and never read as data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from toppo.common.files import PARTIAL
from toppo.dump import chunks
from toppo.dump.documents import Document, check_root, parse
from toppo.dump.errors import DumpError, DumpNotFoundError
from toppo.dump.files import Files
from toppo.dump.header import Header
from toppo.dump.manifest import stored
from toppo.dump.schema import ArraySpec, Layout

ROOT = "zarr.json"
"""Key of the root document."""


def create_array(files: Files, name: str, spec: ArraySpec, layout: Layout) -> None:
    """Make one preallocated array.

    Its chunks are written later. Its length does not change until the dump is closed.
    """
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    attributes: dict[str, Any] = {"units": spec.units, "description": spec.description}
    if spec.steps and name not in layout.step_arrays:
        of_snapshot = [step for step in layout.step_arrays if step != layout.stream_step]
        attributes["coordinates"] = " ".join(of_snapshot) if spec.dims[0] == "snapshot" else layout.stream_step
    fill: Any = {"s": "", "f": float("nan"), "u": 0}.get(spec.dtype[0], -1)
    inner = spec.chunks
    compressors: list[Any] = [Crc32cCodec()]
    if spec.by_row:
        inner = (*inner[: spec.steps], 1, *inner[spec.steps + 1 :])
        compressors.insert(0, BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"))
    zarr.create_array(
        files.store(read_only=False),
        name=name,
        shape=spec.shape,
        chunks=inner,
        shards=spec.chunks if spec.by_row else None,
        dtype=str if spec.dtype == "str" else spec.dtype,
        compressors=compressors,
        fill_value=fill,
        dimension_names=spec.dims,
        attributes=attributes,
        zarr_format=3,
        # "." keeps the chunks of an array in one directory: fewer directories to make and to list
        chunk_key_encoding={"name": "default", "separator": "."},
        overwrite=True,
    )


def create_arrays(files: Files, header: Header) -> None:
    """Make every array of a dump, and write the coordinates.

    Args:
        files: where the dump will be.
        header: its layout describes the arrays. It also says for how many snapshots and stream collects to make room.
    """
    for name, spec in stored(header, header.allocated).items():
        create_array(files, name, spec, header.layout)
        if spec.steps == 0 and spec.shape[0]:
            values = header.layout.coordinate(spec)
            data = chunks.encode_text(values) if spec.dtype == "str" else chunks.encode(np.array(values), spec.dtype)
            files.write(f"{name}/c.0", [data])


def read_documents(files: Files, names: Iterable[str]) -> dict[str, Document]:
    """Array name -> its metadata document. An array without one is left out.

    Raises:
        DumpError: a document is not JSON, or no plain file.
    """
    documents = {}
    for name in names:
        data = files.read(f"{name}/zarr.json")
        if data is not None:
            documents[name] = parse(data, files.where, f"{name}/zarr.json")
    return documents


def set_length(files: Files, documents: Mapping[str, Document], lengths: tuple[int, int]) -> dict[str, Document]:
    """The metadata documents, after the growing arrays were given another length. No chunk is touched.

    An index that becomes longer than its chunk gets further chunks.

    Args:
        files: where the dump is. One small file is replaced for each array whose length changes.
        documents: array name -> its metadata document so far.
        lengths: (snapshots, stream collects).
    """
    changed = dict(documents)
    for name, document in documents.items():
        dims = document["dimension_names"]
        if dims[0] not in ("snapshot", "stream_collect"):
            continue
        length = lengths[0] if dims[0] == "snapshot" else lengths[1]
        if name == dims[0]:
            _extend_index(files, name, document["chunk_grid"]["configuration"]["chunk_shape"][0], length)
        if document["shape"][0] != length:
            changed[name] = {**document, "shape": [length, *document["shape"][1:]]}
            files.replace(f"{name}/zarr.json", json.dumps(changed[name], indent=2).encode())
    return changed


def _extend_index(files: Files, name: str, chunk: int, length: int) -> None:
    for at in range(1, -(-length // chunk)):
        if files.read(f"{name}/c.{at}") is None:
            files.replace(f"{name}/c.{at}", chunks.encode(np.arange(at * chunk, (at + 1) * chunk), "i8"))


def root_document(header: Header, documents: Mapping[str, Document]) -> Document:
    """The root zarr.json of a dump with this header.

    A complete dump consolidates the metadata of its arrays in it. A live dump must not: stale consolidated metadata
    would hide new snapshots from other tools.
    """
    root: Document = {"attributes": header.to_json(documents), "zarr_format": 3, "node_type": "group"}
    if header.complete:
        metadata = {name: documents[name] for name in sorted(documents)}
        root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return root


def write_root(files: Files, header: Header, documents: Mapping[str, Document]) -> None:
    """Commit what the header says: replace the root document whole."""
    files.replace(ROOT, json.dumps(root_document(header, documents), indent=2, allow_nan=False).encode())


def read_root(files: Files) -> Document:
    """The root zarr.json.

    Raises:
        DumpNotFoundError: there is no root document.
        DumpError: the document is damaged, or belongs to something other than a dump.
    """
    data = files.read(ROOT)
    if data is None:
        raise DumpNotFoundError(
            f"{files.where}: not a dump (no {ROOT} there); give a run directory, its dump.zarr or an exported .h5",
            path=files.where,
        )
    root = parse(data, files.where, ROOT)
    check_root(root, files.where)
    if not isinstance(root.get("attributes"), dict):
        raise DumpError(
            f"{files.where}: not a toppo dump ({ROOT} has no attributes); give a run's dump.zarr", path=files.where
        )
    return root


def read_header(files: Files) -> Header:
    """The header of the dump: its layout, and how much is committed.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: this is not a dump, its schema version is another one, or its header is damaged.
    """
    return Header.from_json(read_root(files)["attributes"], files.where)


def clear_uncommitted(files: Files, header: Header) -> None:
    """Delete every chunk that is not committed, and every file that a crash left half written."""
    specs = stored(header, header.allocated)
    for key in list(files.listing()):
        name, _, chunk = key.rpartition("/")
        spec = specs.get(name)
        if key.endswith(PARTIAL):
            files.delete(key)
        elif spec is not None and spec.steps and chunk.startswith("c."):
            committed = header.n_committed if spec.dims[0] == "snapshot" else header.stream_committed
            if int(chunk.split(".")[1]) >= committed:
                files.delete(key)

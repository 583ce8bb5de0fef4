"""The header of a dump: its layout, the attributes of the run, and how much is committed.

It stands in the root document of a store, and in an archive. Nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from toppo.dump.errors import DumpError
from toppo.dump.fields import Fields, shown
from toppo.dump.schema import MOST_STEPS, Layout, log

SCHEMA: Final = "toppo-dump"
SCHEMA_VERSION: Final = 2
"""The version that is written. Version 1 has no manifests; it can be read and resumed."""

NO_LINK: Final = "0" * 64
"""The link (hex) before the first step of a chain, see `toppo.dump.manifest`."""

UNPLANNED: Final = 10_000
"""Snapshots (or stream collects) allocated at first where their number is not known. An unwritten chunk costs nothing.

Whenever there is no room for the next one, twice as many are allocated."""


@dataclass(frozen=True)
class Header:
    """The root attributes: the layout, the attributes of the run, and how much is committed.

    Attributes:
        layout: what is recorded.
        attrs: configuration, seed and versions of the run, in values that JSON can hold.
        n_planned: planned snapshots; None if unknown.
        n_committed: how many snapshots a reader may see. Raising this number is the commit.
        stream_planned: planned stream collects; None if unknown.
        stream_committed: how many stream collects a reader may see.
        complete: whether the run ended and the dump was closed.
        version: version of the format.
        chain: axis -> link (hex) of its last committed manifest; {} in version 1 and in archives.
    """

    layout: Layout
    attrs: Mapping[str, Any]
    n_planned: int | None
    n_committed: int = 0
    stream_planned: int | None = None
    stream_committed: int = 0
    complete: bool = False
    version: int = SCHEMA_VERSION
    chain: Mapping[str, str] = field(default_factory=dict)

    @property
    def allocated(self) -> tuple[int, int]:
        """How many (snapshots, stream collects) the arrays of an open dump have room for."""
        planned = (self.n_planned, self.stream_planned)
        snapshots, collects = (
            _room(there) if n is None else n for n, there in zip(planned, self.committed, strict=True)
        )
        return snapshots, collects

    @property
    def committed(self) -> tuple[int, int]:
        """How many (snapshots, stream collects) are committed."""
        return self.n_committed, self.stream_committed

    def to_json(self, documents: Mapping[str, Any]) -> dict[str, Any]:
        """The root attributes, with a checksum of themselves and a checksum of the metadata of each array.

        Args:
            documents: array name -> its metadata document.
        """
        record: dict[str, Any] = {"schema": SCHEMA, "schema_version": self.version}
        own = ("version", "chain") if self.version == 1 else ("version",)
        record |= {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        record["layout"] = self.layout.to_json()
        record["attrs"] = dict(self.attrs)
        record["array_checksums"] = {name: array_checksum(documents[name]) for name in sorted(documents)}
        return record | {"checksum": checksum(record)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str) -> Header:
        """The header of a dump. Logs a warning if its checksum does not match.

        Args:
            record: the root attributes of the dump.
            where: path or URL of the dump.

        Raises:
            DumpError: this is not a dump, its schema version is another one, or its header is damaged.
        """
        if record.get("schema") != SCHEMA:
            raise DumpError(
                f"{where}: not a toppo dump (no {SCHEMA!r} schema in its attributes); give a run's dump.zarr",
                path=where,
            )
        version = record.get("schema_version")
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            mend = (
                f"update toppo to read version {version}"
                if newer
                else "read it with the toppo that wrote it, or record it again"
            )
            raise DumpError(
                f"{where}: schema version {version}, but this toppo reads versions 1 to {SCHEMA_VERSION}; {mend}",
                path=where,
            )
        if record.get("checksum") != checksum(record):
            log.warning(
                "%s: its header was changed or damaged (checksum); do not trust it, see `toppo-diag verify`", where
            )
        try:
            given = Fields(record)
            header = cls(
                layout=Layout.from_json(given.object("layout")),
                attrs=given.object("attrs"),
                n_planned=given.integer_or_none("n_planned", 0, MOST_STEPS),
                n_committed=given.integer("n_committed", 0, MOST_STEPS),
                stream_planned=given.integer_or_none("stream_planned", 0, MOST_STEPS),
                stream_committed=given.integer("stream_committed", 0, MOST_STEPS),
                complete=given.flag("complete"),
                version=version,
                chain=_chain(given) if version > 1 else {},
            )
            if any(there > room for there, room in zip(header.committed, header.allocated, strict=True)):
                raise ValueError(f"{header.committed} are committed, and there is room for {header.allocated}")
            return header
        except ValueError as error:
            raise DumpError(
                f"{where}: its header is damaged ({error}); restore zarr.json from a copy", path=where
            ) from error

    def at(self, snapshots: int, collects: int, chain: Mapping[str, str] | None = None) -> Header:
        """This header with other numbers of committed snapshots and stream collects, not complete.

        Args:
            snapshots: how many snapshots are committed.
            collects: how many stream collects are committed.
            chain: axis -> link (hex) of the last manifest, where that changes.
        """
        links = {axis: link for axis, link in {**self.chain, **(chain or {})}.items() if link != NO_LINK}
        late = {name: min(first, snapshots) for name, first in self.layout.late.items()}
        layout = self.layout if late == self.layout.late else replace(self.layout, late=late)
        return replace(
            self, layout=layout, n_committed=snapshots, stream_committed=collects, complete=False, chain=links
        )


def checksum(value: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of values that JSON can hold, in any order. An item called "checksum" is left out."""
    body = {key: item for key, item in value.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def array_checksum(document: Mapping[str, Any]) -> str:
    """`checksum` of an array's metadata, without the length of its growing axis, because closing the dump trims it."""
    dims, shape = document.get("dimension_names"), document.get("shape")
    if isinstance(dims, list) and isinstance(shape, list) and dims[:1] in (["snapshot"], ["stream_collect"]):
        document = {**document, "shape": shape[1:]}
    return checksum(document)


def _room(committed: int) -> int:
    """How many are allocated where their number is not known: always more than are committed."""
    room = UNPLANNED
    while room <= committed:
        room *= 2
    return room


def _chain(given: Fields) -> dict[str, str]:
    chain = given.inner("chain")
    links = {axis: chain.text(axis) for axis in chain}
    axes = {"snapshot", "stream_collect"}
    if not links.keys() <= axes or any(re.fullmatch("[0-9a-f]{64}", link) is None for link in links.values()):
        raise ValueError(
            f"chain is {shown(links)}, expected links of 64 hexadecimal digits for {' and '.join(sorted(axes))}"
        )
    return links

"""What binds the content of a dump to its place.

The checksum of a chunk says that its bytes are sound, and not where they belong. So each commit writes a *manifest*
too: the checksum of every chunk of the step, in a fixed order, and a *link*. A link is a SHA-256 of the link before it,
of the step's index and of the checksums. The header holds the last link. Chunks that change places, steps that change
places and steps that come from another dump are found.

Manifests are arrays of the store, one for snapshots and one for the Gram stream. Dumps of version 1 have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from toppo.dump.schema import ArraySpec, Header, Layout

ARRAYS = {"snapshot": "snapshot-manifest", "stream_collect": "stream-manifest"}
"""First axis of an array -> name of the manifests of its steps. No side or scalar can have such a name."""

LINK = 32
"""Bytes of a link."""

START = bytes(LINK)
"""The link before the first step."""

SUM = 4
"""Bytes of a checksum."""


def stored(header: Header, lengths: tuple[int, int]) -> dict[str, ArraySpec]:
    """Array name -> its specification, for every array of a store: those of the layout, and the manifests.

    Args:
        header: header of the dump.
        lengths: (snapshots, stream collects).
    """
    specs = header.layout.arrays(*lengths)
    if header.version == 1:
        return specs
    found = dict(specs)
    for (axis, name), length in zip(ARRAYS.items(), lengths, strict=True):
        count = sum(n for _, n in _counts(specs, axis))
        if count:
            shape = (length, 2 * LINK + SUM * count)
            what = "link before it, own link, and checksum of each chunk"
            found[name] = ArraySpec((axis, f"{name}-byte"), shape, "u1", "1", what)
    return found


def positions(layout: Layout) -> dict[str, int]:
    """Array name -> where its first checksum lies in the manifest of a step."""
    specs = layout.arrays(1, 1)
    places: dict[str, int] = {}
    for axis in ARRAYS:
        at = 2 * LINK
        for name, count in _counts(specs, axis):
            places[name] = at
            at += SUM * count
    return places


def make(axis: str, step: int, before: bytes, sums: bytes) -> bytes:
    """The manifest of a step.

    Args:
        axis: "snapshot" or "stream_collect".
        step: index of the snapshot or collect.
        before: the link before it.
        sums: the checksums, in order.
    """
    link = hashlib.sha256(before + axis.encode() + step.to_bytes(8, "little") + sums).digest()
    return before + link + sums


def before(manifest: bytes) -> bytes:
    """The link that a manifest follows."""
    return manifest[:LINK]


def link(manifest: bytes) -> bytes:
    """The own link of a manifest."""
    return manifest[LINK : 2 * LINK]


def belongs(axis: str, step: int, manifest: bytes) -> bool:
    """Whether a manifest is one of this step."""
    return make(axis, step, before(manifest), manifest[2 * LINK :]) == manifest


def in_order(layout: Layout, axis: str) -> list[str]:
    """Names of the arrays whose checksums are in a manifest, in its order."""
    return [name for name, _ in _counts(layout.arrays(1, 1), axis)]


def _counts(specs: Mapping[str, ArraySpec], axis: str) -> Iterator[tuple[str, int]]:
    """(name, number of checksums in each step) of the arrays along an axis, by name."""
    for name in sorted(specs):
        spec = specs[name]
        if spec.steps and spec.dims[0] == axis:
            yield name, spec.shape[1] * spec.shape[2] if spec.by_row else 1

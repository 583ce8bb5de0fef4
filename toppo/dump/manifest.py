"""What binds the content of a dump to its place.

The checksum of a chunk says that its bytes are sound, and not where they belong. So each commit writes a *manifest*
too: the checksum of every chunk of the step, in a fixed order, and a *link*. A link is a SHA-256 of the link before it,
of the step's index and of the checksums. The header holds the last link. Chunks that change places, steps that change
places and steps that come from another dump are found.

Manifests are arrays of the store, one for snapshots and one for the Gram stream. Dumps of version 1 have none.
"""

from __future__ import annotations

import hashlib

from toppo.dump.header import Header
from toppo.dump.schema import ArraySpec, Layout

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
        layout = header.layout
        count = sum(n for of, (_, n) in _counts(layout, axis).items() if of not in layout.late)
        if count:
            spare = layout.spare if axis == "snapshot" else 0
            shape = (length, 2 * LINK + SUM * (count + spare))
            what = "link before it, own link, and checksum of each chunk"
            found[name] = ArraySpec((axis, f"{name}-byte"), shape, "u1", "1", what)
    return found


def positions(layout: Layout) -> dict[str, int]:
    """Array name -> where its first checksum lies in the manifest of a step."""
    places: dict[str, int] = {}
    for axis in ARRAYS:
        at = 2 * LINK
        for name, (_, count) in _counts(layout, axis).items():
            places[name] = at
            at += SUM * count
    return places


def make(axis: str, step: int, before: bytes, sums: bytes, length: int = 0) -> bytes:
    """The manifest of a step.

    Args:
        axis: "snapshot" or "stream_collect".
        step: index of the snapshot or collect.
        before: the link before it.
        sums: the checksums, in order.
        length: bytes of the manifest. Zeros stand where it has room for more checksums.
    """
    sums = sums.ljust(length - 2 * LINK, b"\0")
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


def in_order(layout: Layout, axis: str, step: int) -> list[str]:
    """Names of the arrays whose checksums are in the manifest of a step, in its order."""
    return [name for name, (first, _) in _counts(layout, axis).items() if first <= step]


def _counts(layout: Layout, axis: str) -> dict[str, tuple[int, int]]:
    """Array name -> (first step that has it, checksums in each step), of the arrays along an axis.

    They stand by name, and those that were declared later stand after all others, in the order of their first step.
    """
    specs = layout.arrays(1, 1)
    late = layout.late
    return {
        name: (late.get(name, 0), specs[name].shape[1] * specs[name].shape[2] if specs[name].by_row else 1)
        for name in sorted(specs, key=lambda name: (name in late, late.get(name, 0), name))
        if specs[name].steps and specs[name].dims[0] == axis
    }

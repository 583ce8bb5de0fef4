"""SHA-256 digests of the arrays of an archive. They stand in its header, which has a checksum itself.

An array is cut into *units*, so that a part can be checked without the rest: a coordinate is one unit, a slab has one
for each row, and any other array one for each snapshot (or stream collect).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks
from toppo.dump.schema import ArraySpec

HEX = 64
"""Characters of one digest."""


def axes(spec: ArraySpec) -> int:
    """How many leading axes of an array tell its units apart."""
    return (0, 1, 3)[spec.steps]


def digest(values: npt.NDArray[Any]) -> str:
    """SHA-256 (hex) of one unit: its numbers, little-endian and in C order, or its texts as in a chunk of a store."""
    if values.dtype.kind in "UO":
        return hashlib.sha256(chunks.encode_text([str(value) for value in values])).hexdigest()
    return hashlib.sha256(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).hexdigest()


def units(values: npt.NDArray[Any], count: int) -> Iterator[npt.NDArray[Any]]:
    """The units in an array whose first `count` axes tell them apart, in C order."""
    return (np.asarray(values[at]) for at in np.ndindex(*values.shape[:count]))


class Digests:
    """The digests of an archive.

    Args:
        record: array name -> the digests of its units, one after the other, as the header has them.
    """

    def __init__(self, record: object) -> None:
        self._record = record if isinstance(record, Mapping) else {}

    def check(self, name: str, spec: ArraySpec, first: tuple[int, ...], values: npt.NDArray[Any]) -> None:
        """Raise ValueError unless a block of an array is what was archived.

        Args:
            name: the array.
            spec: its specification.
            first: where the block begins, along the axes that tell units apart.
            values: the block, which holds whole units.
        """
        shape = spec.shape[: axes(spec)]
        known = self._record.get(name)
        if not isinstance(known, str) or len(known) != HEX * int(np.prod(shape)):
            raise ValueError("has no digest of its values")
        for at, unit in zip(np.ndindex(*values.shape[: len(shape)]), units(values, len(shape)), strict=True):
            place = int(np.ravel_multi_index([f + a for f, a in zip(first, at, strict=True)], shape)) if shape else 0
            if digest(unit) != known[place * HEX : (place + 1) * HEX]:
                raise ValueError("is not what was archived: it does not match its digest")

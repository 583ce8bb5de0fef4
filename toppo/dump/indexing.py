"""Parts of arrays by orthogonal indexing: each axis is cut on its own, as xarray asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.source import Index

Indices = Index
"""An index that lies within the array: see `as_indices`."""


def as_indices(index: Index, shape: tuple[int, ...]) -> Indices:
    """An index whose integers are Python's.

    Raises:
        IndexError: an integer lies outside the array.
    """
    kept: list[int | slice | npt.NDArray[np.int64]] = []
    for i, n in zip(index, shape, strict=True):
        if isinstance(i, int | np.integer):
            if not -n <= i < n:
                raise IndexError(f"index {i} is out of range for the {n} there are")
            kept.append(int(i) % n)
        else:
            kept.append(i if isinstance(i, slice) else np.arange(n)[i])
    return tuple(kept)


def places(i: int | slice | npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """The indices that one entry of an index takes from an axis."""
    return np.arange(*i.indices(length)) if isinstance(i, slice) else np.atleast_1d(np.asarray(i, np.int64))


def pick(values: npt.NDArray[Any], index: Indices) -> npt.NDArray[Any]:
    """Part of an array.

    Args:
        values: with as many axes as the index has entries.
        index: one int, slice or array of integers per axis. An int takes its axis away.

    Returns:
        A view or a copy.
    """
    axis = 0
    for i in index:
        # each axis by basic indexing or by one list; an int gives a view, where np.take would copy
        values = values[(slice(None),) * axis + (i,)]
        axis += not isinstance(i, int)
    return np.asarray(values)


def stacked(parts: Iterator[npt.NDArray[Any]], length: int) -> npt.NDArray[Any] | None:
    """The parts along a new first axis; None if there are none. No more than one is held beside the result."""
    first = next(parts, None)
    if first is None or length == 1:
        return first if first is None else first[np.newaxis]
    values = np.empty((length, *first.shape), first.dtype)
    values[0] = first
    for at, part in enumerate(parts, start=1):
        values[at] = part
    return values

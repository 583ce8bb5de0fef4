"""What a dump reads from: its Zarr store, or an archive. Both have the interface `Source`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from toppo.dump.errors import DumpError
from toppo.dump.header import Header
from toppo.dump.schema import ArraySpec

Index = tuple[int | slice | npt.NDArray[np.int64], ...]
"""One int, slice or array of integers per axis."""

T = TypeVar("T")


class Source(Protocol):
    """The committed arrays of a dump or an archive."""

    @property
    def kind(self) -> str:
        """The word for this source in a message: "dump" or "archive"."""

    @property
    def where(self) -> str:
        """Path or URL."""

    @property
    def header(self) -> Header:
        """Layout, attributes of the run, and how much is committed."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """Every array by name, cut to its committed length."""

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        """Part of an array.

        Args:
            name: the array's name, one of `specs`.
            index: one int, slice or array of integers per axis.

        Raises:
            DumpError: this part is missing or damaged. The message names the array and the snapshot.
        """

    def open(self, name: str) -> None:
        """Raise DumpError if an array cannot be opened at all."""

    def size(self) -> int:
        """Bytes on disk."""

    def damaged_metadata(self) -> list[tuple[str, str]]:
        """(array, what is wrong) for all metadata that differ from what was written."""

    def bindings(self) -> Iterable[tuple[str, int | None, str]]:
        """(array, step, what is wrong) wherever the record of what belongs where is damaged itself.

        What the damaged part of it says is not held against later reads, so that these can be checked otherwise.
        """

    def leftovers(self) -> list[str]:
        """Lines about files that belong to nothing that is committed."""


def guarded(read: Callable[[], T], what: str, path: str) -> T:
    """The result of `read`.

    Args:
        read: reads something that may be damaged.
        what: name of this thing in the message.
        path: path or URL of the dump.

    Raises:
        DumpError: `read` raised any exception. Codecs raise half a dozen types when they meet damage.
    """
    try:
        return read()
    except DumpError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DumpError(f"{what} cannot be read ({reason}); see `toppo-diag verify`", path=path) from error

"""What a dump reads from: its Zarr store, or an archive. Both look the same from above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from toppo.dump.errors import DumpError
from toppo.dump.schema import ArraySpec, Header

Index = tuple[int | slice | npt.NDArray[np.int64], ...]
"""One int, slice or array of integers per axis."""

T = TypeVar("T")


class Source(Protocol):
    """The committed arrays of a dump or an archive."""

    @property
    def kind(self) -> str:
        """What to call it in a message: "dump" or "archive"."""

    @property
    def where(self) -> str:
        """Path or URL."""

    @property
    def header(self) -> Header:
        """Layout, attributes of the run, and how much is committed."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """Every array by name, cut to what is committed."""

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        """Part of an array.

        Args:
            name: the array's name, one of `specs`.
            index: one int, slice or array of integers per axis.

        Raises:
            DumpError: a part is missing or damaged. The message names the array and the snapshot.
        """

    def open(self, name: str) -> None:
        """Raise DumpError if an array cannot be opened at all."""

    def size(self) -> int:
        """Bytes on disk."""

    def damaged_metadata(self) -> list[tuple[str, str]]:
        """(array, what is wrong) wherever metadata differ from what was written."""

    def leftovers(self) -> list[str]:
        """Lines about files that belong to nothing committed."""


def guarded(read: Callable[[], T], what: str, path: str) -> T:
    """The result of `read`.

    Args:
        read: reads something that may be damaged.
        what: names it in the message.
        path: the dump it is of.

    Raises:
        DumpError: in place of any exception of `read`. Codecs answer damage with half a dozen types.
    """
    try:
        return read()
    except DumpError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DumpError(f"{what} cannot be read ({reason}); see `toppo-diag verify`", path=path) from error

"""The commands `info`, `verify` and `export`: what a dump holds, whether it is sound, one portable file of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toppo_diag.request import Source, opened

if TYPE_CHECKING:
    from toppo.dump import Report


def info(dump: Source) -> dict[str, Any]:
    """What a dump holds: run, tasks, snapshots and their steps, sizes, configuration."""
    from toppo.dump import describe

    return describe(opened(dump))


def verify(dump: Source) -> Report:
    """Check a dump against itself: schema, checksums, holes, and Grams recomputed from gradients."""
    from toppo.dump import verify as check

    return check(os.fspath(opened(dump).path))


def export(dump: Source, archive: str | os.PathLike[str], *, slabs: bool = False, keepbits: int | None = None) -> Path:
    """Write one portable HDF5 file of a dump. Every command that needs no gradients reads it in place of the dump.

    Args:
        archive: the HDF5 file to make.
        slabs: the gradients too; everything else always goes.
        keepbits: mantissa bits of the gradients to keep, 1 to 23.
    """
    from toppo.dump import export as write

    return write(os.fspath(opened(dump).path), archive, slabs=slabs, keepbits=keepbits)

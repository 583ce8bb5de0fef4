"""The commands `info`, `verify` and `export`. They describe a dump, check it, and write it as one portable file."""

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
    """Check a dump for damage: its schema, checksums and missing chunks, and its Grams against its gradients."""
    from toppo.dump import verify as check

    return check(os.fspath(opened(dump).path))


def export(dump: Source, archive: str | os.PathLike[str], *, slabs: bool = False, keepbits: int | None = None) -> Path:
    """Write one portable HDF5 file of a dump. Every command that needs no gradients reads it in place of the dump.

    Args:
        archive: the HDF5 file to make.
        slabs: also write the gradients; everything else is always written.
        keepbits: mantissa bits of the gradients to keep, 1 to 23.
    """
    from toppo.dump import export as write

    return write(os.fspath(opened(dump).path), archive, slabs=slabs, keepbits=keepbits)

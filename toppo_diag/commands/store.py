"""The commands `info`, `verify` and `export`. They describe a dump, check it, and write it as one portable file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from toppo_diag.commands.checking import Between, checked
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.output import OutputError
from toppo_diag.request import Source, opened

if TYPE_CHECKING:
    from toppo.dump import Report


def info(dump: Source) -> dict[str, Any]:
    """What a dump holds: run, tasks, snapshots and their steps, sizes, configuration.

    Also says for which commands the dump holds everything, and what is missing for the others. For a directory of runs:
    lists each run, how far it is and how well it does.
    """
    from toppo.dump import DumpError, describe
    from toppo_diag.reading.feeds import feeds
    from toppo_diag.reading.listing import runs_in

    try:
        source = opened(dump)
        return describe(source) | {"commands": feeds(source)}
    except DumpError:
        if runs := runs_in(dump):
            return {"path": str(dump), "kind": "directory", "runs": runs}
        raise


def verify(dump: Source) -> Report:
    """Check a dump for damage: its schema, checksums and missing chunks, and its Grams against its gradients."""
    from toppo.dump import DumpError
    from toppo.dump import verify as check
    from toppo_diag.reading.progress import progress

    try:
        with progress("snapshots") as done:
            return check(os.fspath(opened(dump).path), done)
    except DumpError as error:
        if "see `toppo-diag verify`" not in str(error):
            raise
        # This is that command. What cannot even be opened is most often no dump at all.
        problem = str(error).replace("; see `toppo-diag verify`", "")
        raise DiagnosticError(f"{problem}; give a run directory, its dump.zarr or an exported .h5") from None


@checked
def export(
    dump: Source,
    archive: str | os.PathLike[str],
    *,
    slabs: bool = False,
    keepbits: Annotated[int | None, Between(1, 23)] = None,
    overwrite: bool = False,
) -> Path:
    """Write a dump as one portable HDF5 file. Every command reads this file in place of the dump.

    Args:
        archive: the HDF5 file to make.
        slabs: also write the gradients. Without this option, the Gram of every layer takes the place of gradients.
        keepbits: mantissa bits of the gradients to keep, 1 to 23.
        overwrite: replace the file if it is there already.

    Raises:
        UsageError: the file is there already.
        OutputError: the place cannot be written, or is full.
    """
    from toppo.dump import export as write
    from toppo_diag.reading.progress import progress

    source = opened(dump)
    if Path(archive).exists() and not overwrite:
        raise UsageError(f"{archive} exists: give another file, or `overwrite`")
    with progress("slabs") as done:
        try:
            return write(os.fspath(source.path), archive, slabs=slabs, keepbits=keepbits, progress=done)
        except OSError as error:
            raise OutputError(f"cannot write {archive}: {error.strerror or error}; give another place") from None

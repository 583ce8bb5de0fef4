"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""End of the name of a file that is not finished. Only a crash leaves such a file behind."""


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Write a file so that a reader, or a crash at any moment, sees either the old content or the new.

    The content goes to a new file beside `path`, never through a link that somebody put there. When it is on disk, the
    new file takes the place of `path`.

    Args:
        path: the file to write; its directory must exist.
        content: the bytes, or a function that writes them to an open file.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written. The old content is unchanged.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        fsync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync(path.parent)
    return path


def fsync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on disk.

    Every wait for the disk goes through this function, so that tests can skip them all.
    """
    windows = os.name == "nt"
    if windows and path.is_dir():
        return  # Windows cannot open a directory, and needs no such wait
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

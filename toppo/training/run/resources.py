"""Errors of a machine that has too little memory, too few processes or too few files, in one line each."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from toppo.common.errors import ToppoError

_OUT_OF = {
    errno.ENOMEM: "not enough memory",
    errno.EAGAIN: "the system allows no more processes",
    errno.EMFILE: "the system allows this process no more open files",
    errno.ENFILE: "the system allows no more open files",
}
_MEMORY = ("OutOfMemoryError", "MemoryError", "_ArrayMemoryError")
"""Names of the errors of Python, numpy and torch, which is not imported for this."""
_SAID = {
    "t allocate memory": "not enough memory",
    "not enough memory": "not enough memory",
    "out of memory": "not enough memory",
    "can't start new thread": "the system allows no more threads",
}
"""What a RuntimeError of torch, CUDA or Python says."""
MEND = "use fewer `workers` or smaller networks and collects, or raise the limit"


def lacking(error: BaseException) -> str | None:
    """What the machine lacks, if this is why an error was raised."""
    if isinstance(error, OSError):
        return _OUT_OF.get(error.errno or 0)
    if type(error).__name__ in _MEMORY:
        return "not enough memory"
    if isinstance(error, RuntimeError):
        return next((lack for said, lack in _SAID.items() if said in str(error)), None)
    return None


@contextmanager
def resources_named() -> Iterator[None]:
    """Turn an error that says what the machine lacks into one line.

    Raises:
        ToppoError: in its place. All other errors pass.
    """
    try:
        yield
    except Exception as error:
        if lack := lacking(error):
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            raise ToppoError(f"{lack} ({first_line}): {MEND}") from None
        raise

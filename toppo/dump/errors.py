"""Errors of a dump. Each message is one line: the thing, what is wrong with it, and what to do instead."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import partial
from typing import Any

from toppo.common.errors import ToppoError


class DumpError(ToppoError, ValueError):
    """A dump that cannot be written or read, or a question that it cannot answer.

    Attributes:
        path: the dump's path or URL; None where the error is about no dump in particular.
        allowed: the names or values that would do, where they can be listed.
    """

    def __init__(self, message: str, *, path: str | None = None, allowed: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.path, self.allowed = path, tuple(allowed)


class DumpWriteError(DumpError):
    """Writing a dump failed, for example because the disk is full. What was committed is intact.

    The writer stays in this state: every later call raises this error again. A training loop can catch it once, call
    `DumpWriter.abandon`, and go on without recording.
    """


def cause(failure: BaseException) -> tuple[str, str]:
    """Why writing failed, and what mends it, in a few words each.

    Args:
        failure: what the file system, or the code that writes, has raised.
    """
    reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure) or repr(failure)
    return reason, "free some space" if "space" in reason or "quota" in reason else "mend the cause"


class DumpNotFoundError(DumpError, FileNotFoundError):
    """There is no dump at a path.

    Attributes:
        path: the path or URL.
        filename: the same path or URL, under the name that a `FileNotFoundError` gives it.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message, path=path)
        self.errno, self.filename = errno.ENOENT, path

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError with a file name would add its number and its name

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), path=self.path), self.args  # so that a worker process can return this error

"""What goes wrong with a dump. Each message is one line that names the thing, what is wrong with it, and the mend."""

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


class DumpNotFoundError(DumpError, FileNotFoundError):
    """There is no dump at a path.

    Attributes:
        path: the path or URL.
        filename: the same, as other errors of missing files have it.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message, path=path)
        self.errno, self.filename = errno.ENOENT, path

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError with a file name would print both its own way

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), path=self.path), self.args  # a worker process may hand it back

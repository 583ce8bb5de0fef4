"""The right to write what only one process may write.

The system drops the lock with its process, however the process ends. A forked child does not have it. Both are promises
of `filelock` since version 3.30.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from toppo.common.errors import ToppoError

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Locked(ToppoError):
    """Another writer has the lock."""


class Lock:
    """A lock, taken at once or not at all.

    Args:
        file: the lock's file, which holds nothing. Its directory must exist.

    Raises:
        Locked: another writer has it, in this process or in another one.
        OSError: the directory cannot be written.
    """

    def __init__(self, file: Path) -> None:
        from filelock import FileLock, Timeout

        # not per thread: a writer may be closed by another thread than the one that made it
        self._lock: BaseFileLock = FileLock(file, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise Locked(f"{file}: another process holds this lock; wait for it or stop it") from None

    def release(self) -> None:
        """Let others write, and remove the file. A second call does nothing, nor does one in a forked child."""
        if not self._lock.is_locked:
            return
        if os.name != "nt":
            # While it is held: whoever opened the file meanwhile finds it without a name, and takes a new one.
            # On Windows `filelock` removes the file itself.
            with contextlib.suppress(OSError):
                Path(self._lock.lock_file).unlink()
        self._lock.release()

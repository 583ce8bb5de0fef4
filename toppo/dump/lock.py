"""One writer at a time for each local dump.

The lock is on a file beside the store, `.NAME.lock`. A store can so be built under another name and renamed, which
Windows refuses for a directory that holds an open file, and no reader ever sees the lock. The system drops the lock
with its process, however the process ends; a forked child does not have it (both as `filelock` promises since 3.30).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from toppo.dump.errors import DumpError

if TYPE_CHECKING:
    from filelock import BaseFileLock


class WriterLock:
    """The right to write one local dump, taken at once or not at all.

    Args:
        store: the dump; it need not exist yet, its directory must.

    Raises:
        DumpError: another writer has it, in this process or in another one.
        OSError: the directory cannot be written.
    """

    def __init__(self, store: Path) -> None:
        from filelock import FileLock, Timeout

        real = store.resolve()
        # not per thread: a writer may be closed by another thread than the one that made it
        self._lock: BaseFileLock = FileLock(real.with_name(f".{real.name}.lock"), thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise DumpError(
                f"{store}: another process is writing it; wait for it or stop it", path=str(store)
            ) from None

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

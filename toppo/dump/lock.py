"""One writer at a time for each local dump.

The lock is on a file beside the store, `.NAME.lock`, and not inside it. So no reader sees the lock file. A store can
also be built under another name and then be renamed, which Windows refuses for a directory that holds an open file.
The system releases the lock when the process ends, however it ends. A forked child does not hold the lock. `filelock`
promises both since version 3.30.
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
        store: path of the dump. The dump need not exist yet, but the directory around it must.

    Raises:
        DumpError: another writer has the lock, in this process or in another one.
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
        """Let others write, and remove the lock file. A second call, or a call in a forked child, does nothing."""
        if not self._lock.is_locked:
            return
        if os.name != "nt":
            # The file is removed while the lock is held. A process that has already opened the file then finds that
            # it has no name, and takes a new file. On Windows `filelock` removes the file itself.
            with contextlib.suppress(OSError):
                Path(self._lock.lock_file).unlink()
        self._lock.release()

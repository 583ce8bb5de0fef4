"""One writer at a time for each local dump.

The lock is on a file beside the store, `.NAME.lock`, and not inside it. So no reader sees the lock file. A store can
also be built under another name and then be renamed, which Windows refuses for a directory that holds an open file.
"""

from __future__ import annotations

from pathlib import Path

from toppo.common.lock import Lock, Locked
from toppo.dump.errors import DumpError


class WriterLock(Lock):
    """The right to write one local dump, taken at once or not at all.

    Args:
        store: path of the dump. The dump need not exist yet, but the directory around it must.

    Raises:
        DumpError: another writer has the lock, in this process or in another one.
        OSError: the directory cannot be written.
    """

    def __init__(self, store: Path) -> None:
        real = store.resolve()
        try:
            super().__init__(real.with_name(f".{real.name}.lock"))
        except Locked:
            raise DumpError(
                f"{store}: another process is writing it; wait for it or stop it", path=str(store)
            ) from None

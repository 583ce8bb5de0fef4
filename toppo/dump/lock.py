"""One writer at a time per local dump: an advisory lock on its directory that the kernel drops with the process."""

from __future__ import annotations

import os
from pathlib import Path

from toppo.dump.schema import DumpError

_held: set[int] = set()


def acquire(directory: Path) -> int:
    """Lock a dump's directory and return the handle for `release`.

    Raises:
        DumpError: another writer, in this process or another, has it.
    """
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DumpError(f"{directory}: another process is writing it; wait for it or stop it") from error
    _held.add(handle)
    return handle


def release(handle: int) -> None:
    """Give up the lock; a second call does nothing."""
    if handle in _held:
        _held.discard(handle)
        os.close(handle)


def _forget() -> None:
    # a forked worker (an environment, say) shares the lock and would keep it after its parent was killed
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

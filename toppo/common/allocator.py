"""A setting of the C library: keep freed memory in the process, for the next minibatch."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc

LARGEST_KEPT = 32 << 20
"""Bytes of the largest array that is taken from the heap. glibc accepts no larger value."""
KEPT = 1 << 30
"""Free bytes at the end of the heap above which memory goes back to the system."""


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed arrays instead of returning it to the system.

    The system clears every page that it gives out again, which takes a tenth of an update's time. This has an effect
    with glibc only.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)

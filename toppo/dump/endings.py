"""Writers that were never closed.

A script may reach its end without closing its dump, and a notebook may run a cell again that failed half-way. Neither
may lose a record, and the second must not find its own dump locked.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable

_open: dict[str, Callable[[], None]] = {}  # place of a dump -> ends its writer, with everything recorded written


def began(place: str, end: Callable[[], None]) -> None:
    """Remember an open writer.

    Args:
        place: real path or URL of its dump.
        end: writes what was recorded and ends the writer. It raises nothing.
    """
    _open[place] = end


def ended(place: str, end: Callable[[], None]) -> None:
    """Forget a writer that has ended. Does nothing if another one is open at that place by now."""
    if _open.get(place) == end:
        del _open[place]


def take_over(place: str) -> None:
    """End the writer that this process has at a place, if there is one."""
    if (end := _open.get(place)) is not None:
        end()


def _end_all() -> None:
    for end in list(_open.values()):
        end()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)  # the writing threads do not exist in the child

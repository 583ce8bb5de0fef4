"""Errors a user can cause: each is one clear line that names the thing and the mend, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToppoError(Exception):
    """A run or check that failed: printed as one line, exit code 1."""

    exit_code = 1


class UsageError(ToppoError):
    """A wrong option, name or value: printed as one line, exit code 2."""

    exit_code = 2


class WorkerDied(ToppoError):
    """A process of the run was ended from outside, say for want of memory: the same run may well go on elsewhere."""


class Interrupted(ToppoError):
    """The user (or the system) asked the run to stop; the last checkpoint stands.

    The exit code is what a shell expects of a process that the signal ended: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list: names the closest one, or the whole list when nothing is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return UsageError(f"unknown {kind} {name!r}: {hint}")

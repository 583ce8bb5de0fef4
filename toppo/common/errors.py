"""Errors that a user can cause. Each message is one line: the thing, what is wrong with it, and what to do instead.

A message names options as Python does, in backticks: `dump_every` or `dump_every=0`. The command line turns these into
its own flags (`toppo.common.terminal.with_flags`), so the library never mentions a flag.
"""

from __future__ import annotations

from collections.abc import Iterable

from toppo.common.names import suggestion

_LONGEST = 200
"""Characters of a value that a message shows."""


class ToppoError(Exception):
    """A run or a check that failed. The command line prints it as one line and exits with 1."""

    exit_code = 1


class UsageError(ToppoError, ValueError):
    """A wrong option, name or value. The command line prints it as one line and exits with 2.

    Attributes:
        option: the option's name in Python; None where the error is about something else.
        value: the value that the option was given.
        allowed: the values that the option can have, where they can be listed.
    """

    exit_code = 2

    def __init__(
        self, message: str, *, option: str | None = None, value: object = None, allowed: Iterable[object] = ()
    ) -> None:
        super().__init__(message)
        self.option, self.value, self.allowed = option, value, tuple(allowed)


def bad_option(option: str, value: object, problem: str, allowed: Iterable[object] = ()) -> UsageError:
    """The error for an option's value: "`dump_every=0`: must be at least 1".

    Args:
        option: the option's name in Python.
        value: the value that the option was given.
        problem: what is wrong with the value, and what to give instead.
        allowed: the values that the option can have, where they can be listed.
    """
    return UsageError(f"`{option}={shown(value)}`: {problem}", option=option, value=value, allowed=allowed)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list. It suggests the closest name, or lists all of them.

    Args:
        kind: the kind of thing that the name stands for, such as "preset".
        name: the name that was given.
        known: all names that exist.
    """
    known = list(known)
    return UsageError(f"unknown {kind} {quoted(name)}: {suggestion(name, known)}", value=name, allowed=known)


def shown(value: object, longest: int = _LONGEST) -> str:
    """A value as a message shows it: its text, cut where it is long. It never raises."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested thousands deep
        return f"<{type(value).__name__}>"
    return text if len(text) <= longest else f"{text[:longest]}..."


def quoted(value: object) -> str:
    """A value as it is written in Python, cut where it is long. It never raises."""
    try:
        return shown(repr(value))
    except (ValueError, RecursionError):
        return shown(value)

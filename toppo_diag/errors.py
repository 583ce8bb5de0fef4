"""Errors that a user can cause. Each message is one line: it names the thing, what is wrong, and what to do."""

from __future__ import annotations

import math

from toppo.common.errors import ToppoError, UsageError, bad_option


class DiagnosticError(ToppoError, ValueError):
    """A figure, table or check that cannot be made. The command line prints it as one line and exits with 1."""


def require_at_least(least: float, **options: float) -> None:
    """Check that options are finite numbers and are not too small.

    Raises:
        UsageError: one is not. The error names the option and its value.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise bad_option(name, value, "give a finite number")
        if value < least:
            raise bad_option(name, value, f"must be at least {least:g}")


__all__ = ["DiagnosticError", "UsageError", "bad_option", "require_at_least"]

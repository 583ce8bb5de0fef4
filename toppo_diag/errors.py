"""Errors that a user can cause. Each message is one line: it names the thing, what is wrong, and what to do."""

from __future__ import annotations

from toppo.common.errors import ToppoError, UsageError, bad_option


class DiagnosticError(ToppoError, ValueError):
    """A figure, table or check that cannot be made. The command line prints it as one line and exits with 1."""


__all__ = ["DiagnosticError", "UsageError", "bad_option"]

"""Errors a user can cause: each is one line that names the thing and the mend, and an exit code."""

from __future__ import annotations


class DiagnosticError(Exception):
    """A figure or check that cannot be had: printed as one line, exit code 1."""

    exit_code = 1


class UsageError(DiagnosticError):
    """A wrong option, name or value: printed as one line, exit code 2."""

    exit_code = 2

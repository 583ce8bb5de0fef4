"""The errors of this package. A wrong spec or option raises `toppo.common.errors.UsageError`, also a ValueError."""

from __future__ import annotations

from toppo.common.errors import ToppoError


class CombinerError(ToppoError, ValueError):
    """Numbers that a combiner cannot work with: a Gram, losses, an order or a saved state."""


class MissingPackageError(ToppoError, ImportError):
    """A combiner needs a package that is not installed. The message says how to install it."""

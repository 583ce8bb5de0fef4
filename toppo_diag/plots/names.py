"""Names of tasks, parameters and steps in figures, and the formats of figures. Needs no matplotlib."""

from __future__ import annotations

from toppo_diag.analysis.tasks import METAWORLD, short

FORMATS = ("pdf", "png", "svg")
"""File formats of a saved figure."""

_LONGEST = 28
"""Characters of a parameter's name that a picture shows."""


def shortened(name: str) -> str:
    """A parameter's name as a picture shows it: a long one loses its middle, since its end tells it apart."""
    return name if len(name) <= _LONGEST else f"{name[:8]}\u2026{name[9 - _LONGEST :]}"


def short_steps(steps: int) -> str:
    """A number of steps in a label: 30, 1,500, 20k, 1.5M."""
    if steps < 10_000:
        return f"{steps:,}"
    return f"{steps / 1e6:.3g}M" if steps >= 100_000 else f"{steps / 1e3:.3g}k"


__all__ = ["FORMATS", "METAWORLD", "short", "short_steps", "shortened"]

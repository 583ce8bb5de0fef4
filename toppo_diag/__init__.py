"""Look at gradient dumps, offline and without torch: every command of `toppo-diag` is a function here.

>>> import toppo_diag
>>> product = toppo_diag.heatmaps("figures/data/mean.h5", stage="early")
>>> figure = product.figure()  # the picture; a notebook shows the product itself
>>> product.numbers["condition"].tolist()  # a pandas data frame of the headline numbers
['vanilla', '+PopArt']
>>> files = product.save("figures/out")

A dump is given as a path, as a URL, as an open `toppo.dump.Dump`, or as a list of these. Options have the names and the
defaults of the command line. An error that a user can cause is one clear line, as a `DiagnosticError`, a `UsageError`
(both are `ValueError`s) or a `toppo.dump.DumpError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toppo_diag.batch.make import figures
    from toppo_diag.commands import (
        compare,
        conflicts,
        contributions,
        curves,
        health,
        heatmaps,
        invariance,
        norms,
        replay,
        scalars,
        solver_bench,
        tables,
        trap,
        weights,
    )
    from toppo_diag.commands.report import report
    from toppo_diag.commands.store import export, info, verify
    from toppo_diag.commands.watch import watch
    from toppo_diag.errors import DiagnosticError, UsageError
    from toppo_diag.product import Product
    from toppo_diag.reading.live import look
    from toppo_diag.reporting.document import Report

_HOMES = {
    "batch.make": ("figures",),
    "commands.report": ("report",),
    "commands.store": ("export", "info", "verify"),
    "commands.watch": ("watch",),
    "commands": (
        *("compare", "conflicts", "contributions", "curves", "health", "heatmaps", "invariance", "norms", "replay"),
        *("scalars", "solver_bench", "tables", "trap", "weights"),
    ),
    "errors": ("DiagnosticError", "UsageError"),
    "product": ("Product",),
    "reading.live": ("look",),
    "reporting.document": ("Report",),
}
_HOME = {name: f"toppo_diag.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "DiagnosticError",
    "Product",
    "Report",
    "UsageError",
    "compare",
    "conflicts",
    "contributions",
    "curves",
    "export",
    "figures",
    "health",
    "heatmaps",
    "info",
    "invariance",
    "look",
    "norms",
    "replay",
    "report",
    "scalars",
    "solver_bench",
    "tables",
    "trap",
    "verify",
    "watch",
    "weights",
]


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The names of the front door."""
    return sorted(__all__)

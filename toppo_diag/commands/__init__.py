"""The commands. Each takes dumps or runs, and options, and returns a `Product`.

A command connects reading, analysis and plots, and computes nothing itself.

The command line and the manifest are made from these functions. Their signatures and docstrings are the only place
that defines an option. A command imports most modules only when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from toppo_diag.commands.compare import compare
from toppo_diag.commands.conflicts import conflicts
from toppo_diag.commands.contributions import contributions
from toppo_diag.commands.curves import curves
from toppo_diag.commands.health import health
from toppo_diag.commands.heatmaps import heatmaps
from toppo_diag.commands.invariance import invariance
from toppo_diag.commands.norms import norms
from toppo_diag.commands.replay import replay
from toppo_diag.commands.scalars import scalars
from toppo_diag.commands.solver_bench import solver_bench
from toppo_diag.commands.tables import tables
from toppo_diag.commands.trap import trap
from toppo_diag.commands.weights import weights
from toppo_diag.product import Product
from toppo_diag.request import Selection

__all__ = [
    "compare",
    "conflicts",
    "contributions",
    "curves",
    "health",
    "heatmaps",
    "invariance",
    "norms",
    "replay",
    "scalars",
    "solver_bench",
    "tables",
    "trap",
    "weights",
]

Command = Callable[..., Product]

COMMANDS: dict[str, Command] = {
    make.__name__: make
    for make in (heatmaps, norms, health, contributions, invariance, replay, conflicts, trap, weights)
}
"""The commands that draw from dumps, by name."""

DUMP_TABLES: dict[str, Command] = {make.__name__: make for make in (scalars,)}
"""The commands that make tables from dumps, by name."""

OF_DUMPS = COMMANDS | DUMP_TABLES

RUN_TABLES: dict[str, Command] = {make.__name__: make for make in (tables, compare)}
"""The commands that make tables from the evaluations of runs, by name."""

RUN_FIGURES: dict[str, Command] = {make.__name__: make for make in (curves,)}
"""The commands that draw the evaluations of runs, by name."""

OF_RUNS = RUN_TABLES | RUN_FIGURES

TABLES: dict[str, Command] = {"solver-bench": solver_bench}
"""The commands that need neither a dump nor a run, by name."""

ALL = OF_DUMPS | OF_RUNS | TABLES


def options_of(command: Command) -> list[str]:
    """The names of a command's options: its own, then those of a `Selection` if it takes one."""
    parameters = inspect.signature(command).parameters.values()
    own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    selects = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return own + (list(Selection.__annotations__) if selects else [])

"""The commands. Each takes dumps or runs and its options, and gives a `Product`; it wires reading, analysis and plots.

The command line and the manifest are made from these functions: their signatures and docstrings are the one definition
of every option. A command imports what it computes with when it runs, so that `--help` is quick.
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
"""What draws from dumps, by name."""

RUN_TABLES: dict[str, Command] = {make.__name__: make for make in (tables, compare)}
"""What is read off the evaluations of runs, without a figure, by name."""

RUN_FIGURES: dict[str, Command] = {make.__name__: make for make in (curves,)}
"""What draws the evaluations of runs, by name."""

OF_RUNS = RUN_TABLES | RUN_FIGURES

TABLES: dict[str, Command] = {"solver-bench": solver_bench}
"""What needs neither dump nor run, by name."""

ALL = COMMANDS | OF_RUNS | TABLES


def options_of(command: Command) -> list[str]:
    """The names of a command's options: its own, then those of a `Selection` where it takes one."""
    parameters = inspect.signature(command).parameters.values()
    own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    selects = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return own + (list(Selection.__annotations__) if selects else [])

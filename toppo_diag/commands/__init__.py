"""The figure commands: each takes a `Request`, or the paths of runs, and its own options, and gives a `Product`. Its
docstring and the annotations of its options are what `toppo-diag` shows; what it computes with is imported when it
runs.
"""

from __future__ import annotations

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
from toppo_diag.request import Product

COMMANDS: dict[str, Callable[..., Product]] = {
    make.__name__: make
    for make in (heatmaps, norms, health, contributions, invariance, replay, conflicts, trap, weights)
}
"""What draws from dumps, by name."""

RUN_TABLES: dict[str, Callable[..., Product]] = {make.__name__: make for make in (tables, compare)}
"""What is read off the evaluations of runs, by name: each takes their paths and its own options, and draws nothing."""

RUN_FIGURES: dict[str, Callable[..., Product]] = {make.__name__: make for make in (curves,)}
"""What draws the evaluations of runs, by name: likewise, with a figure."""

OF_RUNS = RUN_TABLES | RUN_FIGURES

TABLES: dict[str, Callable[..., Product]] = {"solver-bench": solver_bench}
"""What needs no dump, by name."""

"""The figure commands: each takes a `Request` and its own options, and gives a `Product`. Its docstring and the
annotations of its options are what `toppo-diag` shows; what it computes with is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from toppo_diag.commands.conflicts import conflicts
from toppo_diag.commands.contributions import contributions
from toppo_diag.commands.health import health
from toppo_diag.commands.heatmaps import heatmaps
from toppo_diag.commands.invariance import invariance
from toppo_diag.commands.norms import norms
from toppo_diag.commands.replay import replay
from toppo_diag.commands.solver_bench import solver_bench
from toppo_diag.commands.trap import trap
from toppo_diag.request import Product

COMMANDS: dict[str, Callable[..., Product]] = {
    make.__name__: make for make in (heatmaps, norms, health, contributions, invariance, replay, conflicts, trap)
}
"""What draws from dumps, by name."""

TABLES: dict[str, Callable[..., Product]] = {"solver-bench": solver_bench}
"""What needs no dump, by name."""

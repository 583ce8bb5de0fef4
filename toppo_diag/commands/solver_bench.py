"""The command `solver-bench`."""

from __future__ import annotations

import dataclasses

from toppo_diag.commands.command import instrument
from toppo_diag.product import Product

MEASURED = ("milliseconds", "times_scipy", "times_paper")
"""Columns that differ each time."""


@instrument
def solver_bench() -> Product:
    """Time FairGrad's solvers on this machine: ours, the paper's, scipy's and SGD, on five kinds of Gram (Table C.1).

    Takes some seconds. Needs no dump.
    """
    from toppo_diag.analysis import solver_bench as bench

    found = bench.solver_bench()
    rows = [dataclasses.asdict(row) for row in found]
    return Product("solver-bench", None, {"": rows}, rows, measured=MEASURED, texts={".md": bench.to_markdown(found)})

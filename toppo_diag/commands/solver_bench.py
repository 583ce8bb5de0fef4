"""`toppo-diag solver-bench`."""

from __future__ import annotations

from toppo_diag.request import Product

MEASURED = ("milliseconds", "times_scipy", "times_paper")


def solver_bench() -> Product:
    """Table C.1 measured here: our FairGrad solver, the paper's, scipy's, the RL release's SGD, on five regimes."""
    import dataclasses

    from toppo_diag.analysis import solver_bench as bench

    rows = [dataclasses.asdict(row) for row in bench.solver_bench()]
    return Product("solver-bench", None, {"": rows}, rows, measured=MEASURED)

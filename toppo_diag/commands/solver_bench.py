"""The command `solver-bench`."""

from __future__ import annotations

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
    from toppo_diag.markup import to_latex, to_markdown

    table = bench.bench_table(bench.solver_bench())
    texts = {".md": to_markdown(table), ".tex": to_latex(table)}
    return Product("solver-bench", None, {"": table.numbers}, table.numbers, measured=MEASURED, texts=texts)

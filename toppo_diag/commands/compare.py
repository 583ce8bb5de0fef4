"""`toppo-diag compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from toppo_diag.commands.options import PUBLISHED, PublishedIn
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.request import Product


def compare(
    runs: tuple[str, ...],
    to: Annotated[str, typer.Option(help="Whose numbers: paper.")] = "paper",
    published: PublishedIn = PUBLISHED,
) -> Product:
    """Ours and the paper's, number by number: the difference, also in the paper's std, and how far our budget falls
    short of the paper's.
    """
    from pathlib import Path

    from toppo_diag.analysis.compare import compare as against
    from toppo_diag.analysis.measures import differences, measures
    from toppo_diag.analysis.tables import group_notes
    from toppo_diag.published import read_published
    from toppo_diag.runs import align_each, read_runs

    if to != "paper":
        raise UsageError(f"--to {to}: give paper")
    paper = read_published(Path(published))
    groups = align_each(read_runs(runs))
    found = [m for group in groups for m in measures(group, paper)]
    found += differences(found, {(row.metric, row.k, row.reward) for row in paper.rows})[0]
    rows = against(found, paper)
    notes = list(group_notes(groups, paper))
    methods = {row["method"] for row in rows}
    without = [group for group in groups if group.label not in methods]
    if len(without) == len(groups):
        labels = "; ".join(f"{g.label} on {g.benchmark} {g.reward}" for g in groups)
        raise DiagnosticError(f"the paper has no number of {labels}; give runs of a rung of its ladder on MT10 or MT50")
    notes += [f"the paper has no number of {group.label} on {group.benchmark}" for group in without]
    return Product(name="compare", figure=None, tables={"": rows}, numbers=rows, notes=notes)

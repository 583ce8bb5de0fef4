"""The command `compare`."""

from __future__ import annotations

from toppo_diag.errors import DiagnosticError, bad_option
from toppo_diag.product import Product
from toppo_diag.request import Sources, as_paths


def compare(runs: Sources, *, to: str = "paper", published: str | None = None) -> Product:
    """Compare our numbers with the paper's, one by one. Shows the difference and our share of the paper's budget.

    Args:
        to: whose numbers to compare with; paper is the only choice.
        published: directory of the paper's numbers, in place of the numbers that come with toppo.
    """
    from toppo_diag.analysis.compare import compare as against
    from toppo_diag.analysis.measures import differences, measures
    from toppo_diag.analysis.runs import align_each
    from toppo_diag.analysis.tables import group_notes
    from toppo_diag.reading.published import read_published
    from toppo_diag.reading.runs import read_runs

    if to != "paper":
        raise bad_option("to", to, "give paper", ("paper",))
    paper = read_published(published)
    groups = align_each(read_runs(as_paths(runs)))
    found = [m for group in groups for m in measures(group, paper)]
    found += differences(found, {(row.metric, row.k, row.reward) for row in paper.rows})[0]
    rows = against(found, paper)
    notes = list(group_notes(groups, paper))
    methods = {row["method"] for row in rows}
    without = [group for group in groups if group.label not in methods]
    if len(without) == len(groups):
        labels = "; ".join(f"{g.label} on {g.benchmark} {g.reward}" for g in groups)
        raise DiagnosticError(
            f"the paper has no number of {labels}; give runs of one of the paper's configurations on MT10 or MT50"
        )
    notes += [f"the paper has no number of {group.label} on {group.benchmark}" for group in without]
    return Product(name="compare", draw=None, rows={"": rows}, headline=rows, notes=notes)

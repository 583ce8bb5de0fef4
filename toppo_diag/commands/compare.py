"""The command `compare`."""

from __future__ import annotations

from toppo_diag.commands.command import instrument
from toppo_diag.errors import DiagnosticError, UsageError, bad_option
from toppo_diag.product import Product
from toppo_diag.request import Sources, as_paths, several, stem


@instrument
def compare(runs: Sources, *, to: str = "paper", published: str | None = None) -> Product:
    """Compare our numbers with the paper's, or with another run's, one by one.

    Shows the difference, and our share of the paper's budget.

    Args:
        to: whose numbers to compare with: paper, or another run.
        published: directory of the paper's numbers, in place of the numbers that come with toppo.
    """
    from toppo_diag.analysis.compare import compare as against
    from toppo_diag.analysis.measures import differences, measures
    from toppo_diag.analysis.runs import align_each
    from toppo_diag.analysis.tables import group_notes
    from toppo_diag.reading.published import read_published
    from toppo_diag.reading.runs import read_runs

    if to != "paper":
        return _to_run(runs, to, published)
    paper = read_published(published)
    ours = read_runs(as_paths(runs))
    groups = align_each(ours)
    found = [m for group in groups for m in measures(group, paper)]
    found += differences(found, {(row.metric, row.k, row.reward) for row in paper.rows})[0]
    rows = against(found, paper)
    notes = list(group_notes(groups, paper))
    compared = {(row["method"], row["benchmark"], row["reward"]) for row in rows}
    without = [group for group in groups if (group.label, *group.setting) not in compared]
    if len(without) == len(groups):
        labels = "; ".join(f"{g.label} on {g.benchmark} {g.reward}" for g in groups)
        raise DiagnosticError(
            f"the paper has no number of {labels}; give runs of one of the paper's configurations on MT10 or MT50"
        )
    notes += [f"the paper has no number of {g.label} on {g.benchmark} {g.reward}" for g in without]
    return Product(
        name=stem("compare", several([run.name for run in ours])),
        draw=None,
        rows={"": rows},
        headline=rows,
        notes=notes,
    )


def _to_run(runs: Sources, to: str, published: str | None) -> Product:
    """Our numbers beside those of another run."""
    from toppo_diag.analysis.compare import compare_runs
    from toppo_diag.analysis.measures import measures
    from toppo_diag.analysis.runs import align_each, one_setting
    from toppo_diag.reading.published import read_published
    from toppo_diag.reading.runs import read_runs

    paper = read_published(published)
    ours = read_runs(as_paths(runs))
    try:
        other = read_runs([to])
    except UsageError as error:
        raise bad_option("to", to, f"give paper, or a run ({error})") from None
    one_setting([*ours, *other])
    groups, others = align_each(ours), align_each(other)
    rows = compare_runs(
        [m for group in groups for m in measures(group, paper)], [m for group in others for m in measures(group, paper)]
    )
    notes = [note for group in (*groups, *others) for note in group.notes]
    if len({group.last_step for group in (*groups, *others)}) > 1:
        notes.append("the runs were evaluated up to different steps; look at their steps before you compare")
    return Product(
        name=stem("compare", several([run.name for run in ours]), "to", other[0].name),
        draw=None,
        rows={"": rows},
        headline=rows,
        notes=list(dict.fromkeys(notes)),
    )

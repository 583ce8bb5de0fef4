"""Compares our numbers with the paper's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toppo_diag.analysis.measures import Measure
from toppo_diag.analysis.published import PAPER, Published
from toppo_diag.analysis.runs import canonical_method


def compare(found: Iterable[Measure], published: Published) -> list[dict[str, Any]]:
    """One row for each of the paper's own numbers that our runs also give.

    Two numbers belong together if method, benchmark, reward, metric, k and task agree. Options of a combiner that are
    its defaults make no difference. If two of the paper's tables print the same number, there is a row for each table.

    Args:
        found: our numbers.
        published: the paper's numbers.

    Returns:
        Rows. `difference` is our number minus the paper's, in `unit`. `in_std` is the difference in the paper's
        standard deviations. It is blank if the paper gives none, or gives 0. `budget_percent` is our budget in percent
        of the paper's.
    """
    ours: dict[tuple[object, ...], list[Measure]] = {}
    for measure in found:
        ours.setdefault(measure.key, []).append(measure)
    rows = []
    for row in published.rows:
        if row.source != PAPER or row.value is None or row.metric == "budget":
            continue
        budget = published.budget(row.benchmark)
        for m in ours.get((canonical_method(row.method), row.benchmark, row.reward, row.metric, row.k, row.task), ()):
            difference = m.value - row.value
            rows.append(
                {
                    "table": row.source_table,
                    "method": m.method if m.of_baseline else m.label,
                    "benchmark": row.benchmark,
                    "reward": row.reward,
                    "metric": m.metric,
                    "k": "" if row.k is None else row.k,
                    "task": row.task,
                    "unit": row.unit,
                    "ours": m.value,
                    "ours_std": "" if m.std is None else m.std,
                    "n": m.n,
                    "paper": row.value,
                    "paper_std": "" if row.std is None else row.std,
                    "paper_n": "" if row.n is None else row.n,
                    "difference": difference,
                    "in_std": difference / row.std if row.std else "",
                    "env_steps": m.env_steps,
                    "paper_env_steps": "" if budget is None else budget,
                    "budget_percent": "" if budget is None else 100 * m.env_steps / budget,
                }
            )
    return rows


def compare_runs(ours: Iterable[Measure], others: Iterable[Measure]) -> list[dict[str, Any]]:
    """One row for each number that our runs and the other runs give.

    Two numbers belong together if benchmark, reward, metric, k and task agree. The methods may differ.

    Returns:
        Rows. `difference` is our number less the other, in `unit`.
    """
    theirs: dict[tuple[object, ...], list[Measure]] = {}
    for measure in others:
        theirs.setdefault(measure.key[1:], []).append(measure)
    return [
        {
            "method": m.label,
            "to": other.label,
            "benchmark": m.benchmark,
            "reward": m.reward,
            "metric": m.metric,
            "k": "" if m.k is None else m.k,
            "task": m.task,
            "unit": m.unit,
            "ours": m.value,
            "n": m.n,
            "other": other.value,
            "other_n": other.n,
            "difference": m.value - other.value,
            "env_steps": m.env_steps,
            "other_env_steps": other.env_steps,
        }
        for m in ours
        if not m.of_baseline
        for other in theirs.get(m.key[1:], ())
    ]

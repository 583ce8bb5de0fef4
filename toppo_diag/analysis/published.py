"""The paper's numbers as data: Tables 2, 3, B.2, C.1 and D.1 to D.11, one number per row.

Tables D.8 and D.9 are about protocols, not numbers; they are rows of text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "TOPPO paper"
"""The source of the paper's own rows. Its baselines have other sources."""


@dataclass(frozen=True)
class PublishedRow:
    """One number of one table, as printed.

    Attributes:
        source_table: "2", "3", "B.2", "C.1", "D.1" and so on.
        method: the paper's rungs by the names of `analysis.runs.RUNGS`, its other combinations by `method_name`, and
            baselines as printed.
        benchmark: "MT10", "MT50", or "" where it does not matter.
        reward: "v1", "v2", "v1-v2" for a gap between them, or "".
        metric: final, best, peak, late (Table D.10's aggregators of the mean over tasks, or with `task` of that task),
            worst_k (at the final checkpoint), iqm (of final, over seeds), parameters, budget, best_step_*,
            step_to_match, step_to_match_share, *_difference and iqm_gap, wall_time, kkt_residual, speedup.
        k: only for worst_k.
        task: the task, in a table with a row per task, or "".
        value: in `unit`; None where the source does not publish it.
        std: standard deviation over the n seeds; None where the source gives none.
        n: number of seeds.
        unit: "%", "pp" (percentage points), "M env steps", "thousand" (parameters), "ms", "1", "times scipy".
        source: `PAPER`, or the work that the paper quotes.
        note: what the table says beside the number.
        details: columns that only this table has, by name.
    """

    source_table: str
    method: str
    benchmark: str
    reward: str
    metric: str
    k: int | None
    task: str
    value: float | None
    std: float | None
    n: int | None
    unit: str
    source: str
    note: str
    details: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """All tables of the paper.

    Attributes:
        rows: the numbers, table by table, in the order of the paper.
        texts: the rows of Tables D.8 and D.9, as text by column.
    """

    rows: tuple[PublishedRow, ...]
    texts: Mapping[str, tuple[Mapping[str, str], ...]]

    def of(self, table: str) -> tuple[PublishedRow, ...]:
        """The numbers of one table."""
        return tuple(row for row in self.rows if row.source_table == table)

    def has_runs(self, benchmark: str, reward: str) -> bool:
        """Whether the paper has runs of its own on a benchmark with these rewards."""
        return any((row.source, row.benchmark, row.reward) == (PAPER, benchmark, reward) for row in self.rows)

    def budget(self, benchmark: str) -> int | None:
        """Environment steps of the paper's runs on a benchmark (Table D.11); None where it has none."""
        found = [row.value for row in self.of("D.11") if (row.metric, row.benchmark) == ("budget", benchmark)]
        return round(found[0] * 1e6) if found and found[0] is not None else None

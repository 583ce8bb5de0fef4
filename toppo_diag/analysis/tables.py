"""Tables 2, 3, B.2 and D.1 to D.11 in the paper's form: the paper's rows, with our runs under or beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toppo_diag.analysis.measures import FIRST, STEPS, Measure, differences, measures
from toppo_diag.analysis.paper_tables import (
    NOTHING,
    PROTOCOLS,
    Cell,
    Line,
    Setting,
    TableForm,
    combiner_of,
    millions,
    percent,
)
from toppo_diag.analysis.published import Published, PublishedRow
from toppo_diag.analysis.runs import Aligned

PAPER_SEEDS = 10
"""Seeds behind each of the paper's own rows (Section 5.1)."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    cells: tuple[str, ...]
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """One table, ready to be typeset.

    Attributes:
        number: the paper's number of the table.
        title: what the table shows.
        spans: a second heading above each column, "" for none. Neighbours with the same text share one heading.
        header: the names of the columns.
        rows: the paper's rows, then ours. In tables with a row per task, our runs are columns.
        notes: what a reader must know about our numbers, one line each.
        numbers: every number with all digits, the paper's and ours, one per row.
        ours: the labels of our runs.
    """

    number: str
    title: str
    spans: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    numbers: tuple[dict[str, Any], ...]
    ours: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The stem of the names of its files, such as "2" or "d10"."""
        return self.number.lower().replace(".", "")

    @property
    def is_text(self) -> bool:
        """Whether its cells are words rather than numbers."""
        return self.number in PROTOCOLS


@dataclass(frozen=True)
class _Ours:
    """Runs of one label, and the numbers measured on them."""

    runs: Aligned
    measures: Sequence[Measure]


_Grid = tuple[tuple[str, ...], tuple[str, ...], tuple[Row, ...]]
"""Spans, header, rows."""


def number_table(form: TableForm, groups: Sequence[Aligned], published: Published) -> Table:
    """One of the paper's tables with the groups that belong in it.

    Args:
        form: which table.
        groups: our runs; those that do not belong in the table are left out.
        published: the paper's numbers.
    """
    theirs = published.of(form.number)
    ours = [
        _Ours(runs, measures(runs, published)) for runs in groups if runs.setting in form.settings and form.keeps(runs)
    ]
    found = [m for group in ours for m in group.measures]
    between, missing = differences(found, {(row.metric, row.k, row.reward) for row in theirs})
    spans, header, rows = _by_method(form, ours, between, theirs) if form.columns else _by_task(ours, theirs)
    shown = {(row.metric, row.k, row.benchmark, row.reward, bool(row.task)) for row in theirs}
    kept = [
        m
        for m in found
        # a number of parameters does not depend on the reward
        if any((m.metric.removesuffix(FIRST), m.k, m.benchmark, r, bool(m.task)) in shown for r in (m.reward, ""))
    ]
    deltas = [
        f"ours: {m.label}, {m.metric.replace('_', ' ')} on {m.benchmark} {m.reward}: {m.value:+.2f} {m.unit}"
        for m in between
        if m.metric != "iqm_gap"  # a column, not a line under the table
    ]
    return Table(
        number=form.number,
        title=form.title,
        spans=spans,
        header=header,
        rows=rows,
        notes=(*group_notes([group.runs for group in ours], published), *missing, *deltas, *form.remarks),
        numbers=(*map(_published_number, theirs), *(_our_number(form.number, m) for m in (*kept, *between))),
        ours=tuple(dict.fromkeys(group.runs.label for group in ours)),
    )


def _by_method(
    form: TableForm, ours: Sequence[_Ours], between: Sequence[Measure], theirs: Sequence[PublishedRow]
) -> _Grid:
    """A table whose lines are methods: those of the paper in its order, then ours."""
    lines = [*_published_lines(form, ours, theirs), *_our_lines(form, ours, between)]
    rows = tuple(Row((line.name, *(column.text(line) for column in form.columns)), line.ours) for line in lines)
    spans = ("", *(column.span for column in form.columns))
    return spans, ("Method", *(column.header for column in form.columns)), rows


def _published_lines(form: TableForm, ours: Sequence[_Ours], theirs: Sequence[PublishedRow]) -> list[Line]:
    matched = {(m.metric, m.method): m.value for group in ours for m in group.measures if m.of_baseline}
    of_method: dict[str, list[PublishedRow]] = {}
    for row in theirs:
        if not row.metric.endswith("_difference"):
            name = f"{row.method} ({row.source})" if form.by_source else row.method
            of_method.setdefault(name, []).append(row)
    return [
        Line(
            name=name,
            ours=False,
            method=rows[0].method,
            actor=rows[0].details.get("actor", ""),
            critic=rows[0].details.get("critic", ""),
            note=rows[0].note,
            benchmark=benchmark,
            cells={(row.metric, row.k, row.benchmark, row.reward): Cell(row.value, row.std) for row in rows},
            matched=matched.get(("step_to_match", rows[0].method)),
            matched_first=matched.get((f"step_to_match{FIRST}", rows[0].method)),
        )
        for benchmark in (dict.fromkeys(b for b, _ in form.settings) if form.by_benchmark else [""])
        for name, rows in of_method.items()
    ]


def _our_lines(form: TableForm, ours: Sequence[_Ours], between: Sequence[Measure]) -> list[Line]:
    """Our lines, one for each label. In a table with two rewards (D.3) or benchmarks (2, D.10), one line holds both."""
    lines: dict[tuple[str, ...], list[_Ours]] = {}
    for group in ours:
        key = (group.runs.label, group.runs.benchmark) if form.by_benchmark else (group.runs.label,)
        lines.setdefault(key, []).append(group)
    made = []
    for (label, *_), groups in lines.items():
        runs = groups[0].runs
        found = [m for group in groups for m in group.measures if not m.task and m.method == runs.method]
        found += [m for m in between if m.label == label]
        extent = "; ".join(_extent(group.runs, where=len(groups) > 1) for group in groups)
        made.append(
            Line(
                name=f"ours: {label} ({extent})",
                ours=True,
                method=runs.method,
                actor=combiner_of(runs, "actor"),
                critic=combiner_of(runs, "critic"),
                note="",
                benchmark=runs.benchmark,
                cells={(m.metric, m.k, m.benchmark, m.reward): Cell(m.value, m.std) for m in found},
            )
        )
    return made


def _by_task(ours: Sequence[_Ours], theirs: Sequence[PublishedRow]) -> _Grid:
    """A table whose lines are tasks in the paper's order. Its columns are the paper's rungs, then our runs."""
    columns: dict[str, dict[str, Cell]] = {}
    for row in theirs:
        columns.setdefault(row.method, {})[row.task] = Cell(row.value, row.std)
    for group in ours:
        columns[f"ours: {group.runs.label} ({_extent(group.runs)})"] = {
            m.task: Cell(m.value, m.std) for m in group.measures if m.task
        }
    tasks = dict.fromkeys(row.task for row in theirs)
    rows = tuple(Row((task, *(percent(column.get(task)) for column in columns.values()))) for task in tasks)
    return ("",) * (1 + len(columns)), ("Task", *columns), rows


def _extent(runs: Aligned, where: bool = False) -> str:
    """The numbers of seeds and steps of our runs, as text."""
    said = f"n = {len(runs.seeds)}, {millions(runs.last_step)} steps"
    return f"{runs.benchmark} {runs.reward}: {said}" if where else said


def group_notes(groups: Sequence[Aligned], published: Published) -> tuple[str, ...]:
    """Notes on how our runs differ from the paper's: in seeds, budgets and missing evaluations."""
    alike: dict[tuple[str, str], list[str]] = {}  # the labels of which the same is to be said
    of_runs: list[str] = []
    notes = [
        "ours: mean over n seeds (interquartile mean where a column says IQM) ± sample standard deviation, "
        "at the last evaluation that all of them have"
    ]
    for runs in groups:
        theirs = published.has_runs(*runs.setting)
        budget = published.budget(runs.benchmark) if theirs else None
        n = len(runs.seeds)
        said = f"{n} seeds ({', '.join(map(str, runs.seeds))})" if n > 1 else f"1 seed ({runs.seeds[0]}), so no std"
        if not theirs:
            said += f"; {millions(runs.last_step)} steps; the paper has no such runs"
        elif n < PAPER_SEEDS:
            said += f"; the paper has {PAPER_SEEDS} seeds"
        if budget:
            share = f"{100 * runs.last_step / budget:.3g}%"
            said += f"; {millions(runs.last_step)} of the paper's {millions(budget)} steps ({share})"
        alike.setdefault((f"{runs.benchmark} {runs.reward}", said), []).append(runs.label)
        of_runs += runs.notes
    notes += [f"ours: {'; '.join(labels)} on {where}: {said}" for (where, said), labels in alike.items()]
    notes += of_runs
    if len({(runs.setting, runs.last_step) for runs in groups}) > len({runs.setting for runs in groups}):
        notes.append("our runs have different budgets; look at their steps before you compare rows")
    return tuple(notes)


def protocol_table(number: str, groups: Sequence[Aligned], published: Published) -> Table:
    """Table D.8 or D.9, with one row of ours for each benchmark and reward."""
    records = [dict(record) for record in published.texts.get(number, ())]
    columns = [c for c in (records[0] if records else {}) if c != "source_table"]
    settings: dict[Setting, list[Aligned]] = {}
    for group in groups:
        settings.setdefault(group.setting, []).append(group)
    for (benchmark, reward), members in settings.items():
        steps = sorted({group.last_step for group in members})
        reached = " to ".join(f"{s / 1e6:g}" for s in ([steps[0], steps[-1]] if len(steps) > 1 else steps))
        seeds = sorted({len(group.seeds) for group in members})
        ours = {
            "paper": f"ours: {benchmark} {reward}",
            "reported": "these runs",
            f"total_{benchmark.lower()}": reached,
            "unit": STEPS,
            "verification": "last evaluation that all seeds have",
            "seeds": " to ".join(map(str, [seeds[0], seeds[-1]] if len(seeds) > 1 else seeds)),
            "aggregator": "all of A/B/C/D",
            "description": "best/peak/final/late, all reported",
            "dispersion": "std",
            "eval_episodes": ", ".join(str(e) for e in sorted({group.config["eval_episodes"] for group in members})),
            "reward": reward,
        }
        records.append({"source_table": number, **{column: ours.get(column, "") for column in columns}})
    rows = tuple(Row(tuple(r[c] or NOTHING for c in columns), ours=r["paper"].startswith("ours:")) for r in records)
    header = tuple(column.replace("_", " ") for column in columns)
    notes = tuple(note for group in groups for note in group.notes)
    labels = tuple(dict.fromkeys(group.label for group in groups))
    return Table(
        number=number,
        title=PROTOCOLS[number],
        spans=("",) * len(header),
        header=header,
        rows=rows,
        notes=notes,
        numbers=tuple(records),
        ours=labels,
    )


def _published_number(row: PublishedRow) -> dict[str, Any]:
    return {
        "table": row.source_table,
        "whose": "paper",
        "method": row.method,
        "benchmark": row.benchmark,
        "reward": row.reward,
        "metric": row.metric,
        "k": _blank(row.k),
        "task": row.task,
        "value": _blank(row.value),
        "std": _blank(row.std),
        "sem": "",
        "low": "",
        "high": "",
        "n": _blank(row.n),
        "unit": row.unit,
        "env_steps": "",
        "source": row.source,
    }


def _our_number(table: str, measure: Measure) -> dict[str, Any]:
    return {
        "table": table,
        "whose": "ours",
        "method": measure.method if measure.of_baseline else measure.label,
        "benchmark": measure.benchmark,
        "reward": measure.reward,
        "metric": measure.metric,
        "k": _blank(measure.k),
        "task": measure.task,
        "value": measure.value,
        "std": _blank(measure.std),
        "sem": _blank(measure.sem),
        "low": _blank(measure.low),
        "high": _blank(measure.high),
        "n": measure.n,
        "unit": measure.unit,
        "env_steps": measure.env_steps,
        "source": "these runs",
    }


def _blank(value: Any) -> Any:
    return "" if value is None else value

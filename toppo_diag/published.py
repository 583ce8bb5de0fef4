"""The paper's numbers as data: Tables 2, 3, B.2, C.1 and D.1 to D.11, one CSV file each, one number a row.

Tables D.8 and D.9 are about protocols, not numbers; they are rows of text.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toppo_diag.errors import DiagnosticError, UsageError

PAPER = "TOPPO paper"
"""The source of the rows that are the paper's own; its baselines have other sources."""

_TEXTS = ("D.8", "D.9")
_COLUMNS = (
    *("source_table", "method", "benchmark", "reward", "metric", "k", "task"),
    *("value", "std", "n", "unit", "source", "note"),
)


@dataclass(frozen=True)
class PublishedRow:
    """One number of one table, as printed.

    Attributes:
        source_table: "2", "3", "B.2", "C.1", "D.1" and so on.
        method: the paper's rungs by the names of `toppo_diag.runs.RUNGS`, its other combinations by `method_name`;
            baselines as printed.
        benchmark: "MT10", "MT50", or "" where it does not matter.
        reward: "v1", "v2", "v1-v2" for a gap between them, or "".
        metric: final, best, peak, late (Table D.10's aggregators of the mean over tasks, or with `task` of that task),
            worst_k (at the final checkpoint), iqm (of final, over seeds), parameters, budget, best_step_*,
            step_to_match, step_to_match_share, *_difference and iqm_gap, wall_time, kkt_residual, speedup.
        k: of worst_k.
        task: of a per-task table, or "".
        value: in `unit`; None where the source does not publish it.
        std: over the n seeds, where there is one.
        n: seeds.
        unit: "%", "pp" (percentage points), "M env steps", "thousand" (parameters), "ms", "1", "times scipy".
        source: `PAPER`, or whom the paper quotes.
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
    """Every table.

    Attributes:
        rows: numbers, table by table, in the order of the paper.
        texts: Tables D.8 and D.9, row by row, column to text.
    """

    rows: tuple[PublishedRow, ...]
    texts: Mapping[str, tuple[Mapping[str, str], ...]]

    def of(self, table: str) -> tuple[PublishedRow, ...]:
        """The numbers of one table."""
        return tuple(row for row in self.rows if row.source_table == table)

    def budget(self, benchmark: str) -> int | None:
        """Environment steps of the paper's runs on a benchmark (Table D.11); None where it has none."""
        found = [row.value for row in self.of("D.11") if (row.metric, row.benchmark) == ("budget", benchmark)]
        return round(found[0] * 1e6) if found and found[0] is not None else None


def read_published(directory: Path) -> Published:
    """Every table-*.csv of a directory.

    Raises:
        UsageError: no such directory, or nothing in it.
        DiagnosticError: a file that is damaged.
    """
    paths = sorted(directory.glob("table-*.csv"), key=_order)
    if not paths:
        problem = "holds no table-*.csv" if directory.is_dir() else "no such directory"
        raise UsageError(f"--published {directory}: {problem}; give the published numbers, as figures/published")
    rows: list[PublishedRow] = []
    texts: dict[str, tuple[Mapping[str, str], ...]] = {}
    for path in paths:
        records = _records(path)
        if records[0]["source_table"] in _TEXTS:
            texts[records[0]["source_table"]] = tuple(records)
        else:
            rows += [_row(path, number, record) for number, record in enumerate(records, start=2)]
    return Published(tuple(rows), texts)


def _order(path: Path) -> tuple[str, int]:
    """2, 3, b2, c1, d1, ..., d11."""
    name = path.stem.removeprefix("table-")
    letter = name[0] if name[0].isalpha() else ""
    digits = name.removeprefix(letter)
    return letter, int(digits) if digits.isdecimal() else 0


def _records(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            records = list(reader)
    except OSError as error:
        raise DiagnosticError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DiagnosticError(f"{path}: is damaged ({error}); restore it") from None
    columns = ("source_table",) if records and records[0].get("source_table") in _TEXTS else _COLUMNS
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing or not records:
        raise DiagnosticError(f"{path}: is damaged, it lacks {', '.join(missing) or 'rows'}; restore it")
    for number, record in enumerate(records, start=2):
        if None in record or None in record.values():
            raise DiagnosticError(f"{path}, line {number}: has another number of columns than its head; restore it")
    return records


def _row(path: Path, number: int, record: Mapping[str, str]) -> PublishedRow:
    def as_number(column: str) -> float | None:
        text = record[column]
        try:
            return float(text) if text else None
        except ValueError:
            raise DiagnosticError(f"{path}, line {number}: {column} {text!r} is no number; restore it") from None

    k, n = as_number("k"), as_number("n")
    return PublishedRow(
        source_table=record["source_table"],
        method=record["method"],
        benchmark=record["benchmark"],
        reward=record["reward"],
        metric=record["metric"],
        k=None if k is None else int(k),
        task=record["task"],
        value=as_number("value"),
        std=as_number("std"),
        n=None if n is None else int(n),
        unit=record["unit"],
        source=record["source"],
        note=record["note"],
        details={column: text for column, text in record.items() if column not in _COLUMNS},
    )

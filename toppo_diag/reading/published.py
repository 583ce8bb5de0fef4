"""The paper's numbers, read from one CSV file per table. The files come with the package."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from toppo_diag.analysis.published import Published, PublishedRow
from toppo_diag.errors import DiagnosticError, bad_option

_TEXTS = ("D.8", "D.9")
_COLUMNS = (
    *("source_table", "method", "benchmark", "reward", "metric", "k", "task"),
    *("value", "std", "n", "unit", "source", "note"),
)


def paper_directory() -> Path:
    """The directory of the paper's numbers and manifest: in the installed package, or figures/ in a clone."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "paper"
    return packaged if packaged.is_dir() else package.parent / "figures"


def read_published(directory: str | os.PathLike[str] | None = None) -> Published:
    """Every table of the paper, from the table-*.csv files of a directory.

    Args:
        directory: the directory to read; None takes the numbers that come with the package.

    Raises:
        UsageError: no such directory, or no table in it.
        DiagnosticError: a file is damaged.
    """
    directory = paper_directory() / "published" if directory is None else Path(directory)
    paths = sorted(directory.glob("table-*.csv"), key=_order)
    if not paths:
        problem = "holds no table-*.csv" if directory.is_dir() else "no such directory"
        raise bad_option("published", directory, f"{problem}; leave it out to take the numbers that come with toppo")
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
    """A sort key that gives the paper's order: 2, 3, b2, c1, d1, ..., d11."""
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
            raise DiagnosticError(f"{path}, line {number}: has another number of columns than the header; restore it")
    return records


def _row(path: Path, number: int, record: Mapping[str, str]) -> PublishedRow:
    def as_number(column: str) -> float | None:
        text = record[column]
        try:
            return float(text) if text else None
        except ValueError:
            raise DiagnosticError(f"{path}, line {number}: {column} {text!r} is not a number; restore it") from None

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

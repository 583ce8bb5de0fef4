"""Writing figures, tables and texts as files (PDF, PNG, SVG, CSV). Each file is written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toppo.common.files import write_whole
from toppo_diag.errors import DiagnosticError, bad_option
from toppo_diag.plots.names import FORMATS
from toppo_diag.request import name_problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
"""One line of a table: column to value."""


class OutputError(DiagnosticError):
    """A figure or table that cannot be written."""


def chosen_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, checked.

    Raises:
        UsageError: there is none, or one that is not in `FORMATS`.
    """
    if not formats or not set(formats) <= set(FORMATS):
        raise bad_option("formats", ",".join(formats), f"give some of {', '.join(FORMATS)}", FORMATS)
    return tuple(formats)


def chosen_name(name: str | None) -> str | None:
    """The name for files, checked; None where none was chosen.

    Raises:
        UsageError: it could leave the directory, or is no file name on some system.
    """
    if name is not None and (problem := name_problem(name)):
        raise bad_option("name", repr(name), problem)
    return name


def require_writable(out: Path) -> None:
    """Check that a directory can be written, before any work is done for it.

    Raises:
        OutputError: the directory cannot be written.
    """
    _write(out / ".writable", b"").unlink()


def json_text(value: Any) -> str:
    """A value as JSON, with null for the numbers that JSON does not have (NaN and infinity)."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(text: str, path: Path) -> Path:
    """Write a text file in UTF-8.

    Raises:
        OutputError: the place cannot be written.
    """
    return _write(path, text.encode())


def write_figure(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure as stem.<format> for each format.

    Raises:
        OutputError: the place cannot be written.
    """
    from toppo_diag.plots.style import save_figure

    with _writing(stem):
        return save_figure(figure, stem, formats)


def write_csv(rows: Iterable[Row], path: Path) -> Path:
    """Write rows as a CSV file.

    Raises:
        OutputError: the place cannot be written.
    """
    return write_text(to_csv(rows), path)


def write_sink(sink: Callable[[Path], Path], stem: Path) -> Path:
    """Let a sink write its files under the path `stem`.

    Raises:
        OutputError: the place cannot be written.
    """
    with _writing(stem):
        stem.parent.mkdir(parents=True, exist_ok=True)
        return sink(stem)


def to_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV, with all digits of the floats. A cell is blank where a row lacks the column."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Rows of equal keys as aligned lines of text. A number and its range, `_low` and `_high`, share a column."""
    if not rows:
        return []
    columns = list(dict.fromkeys(column for row in rows for column in row))
    ranged = {c for c in columns if f"{c}_low" in columns and f"{c}_high" in columns}
    columns = [c for c in columns if c not in {f"{name}{end}" for name in ranged for end in ("_low", "_high")}]
    shown = [[_cell(row, c) if c in ranged else shown_value(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in shown)) for i, c in enumerate(columns)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [columns, *shown]
    ]


def _cell(row: Row, column: str) -> str:
    """A number and its range, such as `190.2 (6.618 to 3282)`; the number alone where all are the same."""
    number, low, high = (row.get(f"{column}{end}", "") for end in ("", "_low", "_high"))
    known = isinstance(low, float) and isinstance(high, float) and low < high
    ends = [shown_value(end) for end in (low, high)] if known else []
    return shown_value(number) + (f" ({' to '.join(ends)})" if len(set(ends)) > 1 else "")


def shown_value(value: Any) -> str:
    """A value as a table shows it. A float has four digits."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _write(path: Path, content: bytes) -> Path:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give another `out`") from None

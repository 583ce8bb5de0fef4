"""Where a command's figures and numbers go: PDF, PNG and CSV, each whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toppo_diag.errors import DiagnosticError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toppo_diag.request import Product, Row

FORMATS = ("pdf", "png", "svg")


class OutputError(DiagnosticError):
    """A figure or table that cannot be written: one line that names the path and the mend."""


def chosen_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, if they are some of `FORMATS`.

    Raises:
        UsageError: they are not.
    """
    if not formats or not set(formats) <= set(FORMATS):
        raise UsageError(f"--format {','.join(formats)}: give some of {', '.join(FORMATS)}, separated by commas")
    return tuple(formats)


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file by way of a temporary one, so that a Ctrl-C leaves the old file or the new one.

    Raises:
        OutputError: the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give another --out") from None
    return path


def require_writable(out: Path) -> None:
    """Find out before the work, not after it, that a directory cannot be written.

    Raises:
        OutputError: it cannot.
    """
    write_whole(out / ".writable", b"").unlink()


def write_product(product: Product, out: Path, formats: Sequence[str]) -> list[Path]:
    """Everything a command made, under `out`: the figure in each format, a CSV for each table, and its
    texts.
    """
    made: list[Path] = []
    if product.figure is not None:
        from toppo_diag.plots.style import paper_style

        with paper_style():
            made += write_figure(product.figure(), out / product.name, formats)
    made += [write_csv(rows, out / f"{product.name}{suffix}.csv") for suffix, rows in product.tables.items()]
    made += [write_whole(out / f"{product.name}{ending}", text.encode()) for ending, text in product.texts.items()]
    return made


def write_figure(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """The figure as stem.<format> for every format; no date inside, so that the same data give the same bytes."""
    made = []
    for kind in formats:
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
        figure.savefig(buffer, format=kind, metadata=metadata)
        made.append(write_whole(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue()))
    return made


def to_csv(rows: Iterable[Row]) -> str:
    """Rows of equal keys as CSV; floats in full."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Iterable[Row], path: Path) -> Path:
    """Rows of equal keys as a CSV file."""
    return write_whole(path, to_csv(rows).encode())


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Rows of equal keys as aligned text."""
    if not rows:
        return []
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = [[shown_value(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in shown)) for i, c in enumerate(columns)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [columns, *shown]
    ]


def shown_value(value: Any) -> str:
    """A value as a table shows it: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"

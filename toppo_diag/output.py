"""Where a command's figures and numbers go: PDF, PNG and CSV, each whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png", "svg")


class OutputError(Exception):
    """A figure or table that cannot be written: one line that names the path and the mend."""


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


def write_figure(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """The figure as stem.<format> for every format; no date inside, so that the same data give the same bytes."""
    made = []
    for kind in formats:
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
        figure.savefig(buffer, format=kind, metadata=metadata)
        made.append(write_whole(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue()))
    return made


def write_csv(rows: Iterable[dict[str, Any]], path: Path) -> Path:
    """Rows of equal keys as CSV; floats in full."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_whole(path, text.getvalue().encode())

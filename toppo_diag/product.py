"""The result of a command: a figure, the numbers behind it, and notes. It is on disk only after `save`."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from toppo_diag.errors import DiagnosticError
from toppo_diag.output import (
    OutputError,
    Row,
    chosen_formats,
    chosen_name,
    table_lines,
    write_csv,
    write_figure,
    write_sink,
    write_text,
)
from toppo_diag.request import Texts, as_texts, name_problem

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MAIN = "main"
"""The key of a product's first table."""


@dataclass(frozen=True, repr=False)
class Product:
    """The result of a command.

    Attributes:
        name: the stem of the names of its files.
        draw: makes the figure; None for a command without a picture. Those of commands that take several runs take
            `figure`, a SubFigure to draw on.
        rows: the numbers behind the figure, by the suffix of their CSV file ("" for the first).
        headline: the few numbers that the command prints.
        notes: what is missing and why, one line each.
        failures: why a check failed, one line each; the command line then exits with 1.
        measured: columns that differ each time, such as times. `toppo-diag figures` does not compare them.
        texts: the content of further files, by the end of their name ("-2.md").
        sinks: write further files, from the path of all files without an ending, and return what they wrote.
    """

    name: str
    draw: Callable[..., Figure] | None
    rows: Mapping[str, Sequence[Row]]
    headline: Sequence[Row]
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()
    measured: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    sinks: Sequence[Callable[[Path], Path]] = ()

    def figure(self) -> Figure:
        """The picture, the same as the command saves. Each call draws a new one.

        Raises:
            DiagnosticError: this command draws nothing.
        """
        if self.draw is None:
            raise DiagnosticError(f"{self.name} has no figure; its numbers are in `tables`")
        return self.draw()

    @property
    def numbers(self) -> pd.DataFrame:
        """The few numbers that the command prints, one row each."""
        import pandas as pd

        return pd.DataFrame(list(self.headline))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables behind the figure, by name, with the content of the CSV files. The first is "main"."""
        import pandas as pd

        return {suffix.strip("-") or MAIN: pd.DataFrame(list(rows)) for suffix, rows in self.rows.items()}

    def save(
        self,
        directory: str | os.PathLike[str] = "figures/out",
        formats: Texts = "pdf,png",
        name: str | None = None,
    ) -> list[Path]:
        """Write the figure in each format, a CSV file for each table, the texts, and what the sinks write.

        Args:
            directory: where to write; it is made if it is not there.
            formats: out of pdf, png, svg.
            name: how the files are named, without the ending; None takes the product's own name.

        Returns:
            The files, figures first.

        Raises:
            UsageError: an unknown format, or a name that is no plain file name.
            OutputError: the directory cannot be written.
        """
        kinds, out, name = chosen_formats(as_texts(formats)), Path(directory), chosen_name(name) or self.name
        if problem := name_problem(name):
            raise OutputError(f"{name!r} cannot name files: {problem}")
        made = [] if self.draw is None else write_figure(self.figure(), out / name, kinds)
        made += [write_csv(rows, out / f"{name}{suffix}.csv") for suffix, rows in self.rows.items()]
        made += [write_text(text, out / f"{name}{ending}") for ending, text in self.texts.items()]
        made += [write_sink(sink, out / name) for sink in self.sinks]
        return made

    def __repr__(self) -> str:
        lines = [f"<Product {self.name}>", *table_lines(self.headline)]
        lines += [f"note: {note}" for note in self.notes] + [f"failed: {failure}" for failure in self.failures]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, the headline numbers and the notes."""
        parts = [f"<p><b>{escape(self.name)}</b></p>"]
        if self.draw is not None:
            from toppo_diag.plots.style import figure_bytes

            picture = base64.b64encode(figure_bytes(self.figure(), "png")).decode()
            parts.append(
                f'<img style="max-width: 100%" alt="{escape(self.name)}" src="data:image/png;base64,{picture}">'
            )
        if self.headline:
            parts.append(self.numbers.to_html(index=False, escape=True))
        parts += [f"<p>note: {escape(note)}</p>" for note in self.notes]
        parts += [f"<p>failed: {escape(failure)}</p>" for failure in self.failures]
        return "".join(parts)


__all__ = ["MAIN", "Product"]

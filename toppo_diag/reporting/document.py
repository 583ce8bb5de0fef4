"""The result of `toppo_diag.report`: a page, the numbers of its findings, and notes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from toppo_diag.output import Row, table_lines, write_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Report:
    """A report as one HTML file.

    Attributes:
        html: the text of the file.
        headline: one row for each finding and check.
        options: one row for each combiner that was applied to the recorded gradients.
        notes: what is missing and why, one line each.
        complete: whether all runs have ended.
    """

    html: str
    headline: Sequence[Row]
    options: Sequence[Row]
    notes: Sequence[str]
    complete: bool

    @property
    def numbers(self) -> pd.DataFrame:
        """Every check of every run, one row each, trouble first."""
        import pandas as pd

        return pd.DataFrame(list(self.headline))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the page: "main", the checks, and "what-if", what other combiners would do."""
        import pandas as pd

        return {"main": self.numbers, "what-if": pd.DataFrame(list(self.options))}

    def save(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write the page. An older file at this place is replaced whole.

        Args:
            path: of the file, or of a directory, in which the file is report.html.

        Returns:
            The file.

        Raises:
            OutputError: the place cannot be written.
        """
        return write_text(self.html, page_file(path))

    def lines(self) -> list[str]:
        """The findings and notes as lines for a terminal."""
        found = [row for row in self.headline if row["verdict"] in ("trouble", "note")]
        columns = ("run", "side", "check", "verdict", "number", "number_low", "number_high", "since")
        shown = [{key: row[key] for key in columns} for row in found]
        return [*table_lines(shown), *self._untroubled(shown), *(f"note: {note}" for note in self.notes)]

    def _untroubled(self, shown: Sequence[Row]) -> list[str]:
        """That nothing was found, or which runs cannot be judged."""
        from toppo_diag.analysis.findings import state_of  # not with the command line, which imports this module

        of_run: dict[str, list[str]] = {}
        for row in self.headline:
            of_run.setdefault(row["run"], []).append(row["verdict"])
        unknown = [run for run, verdicts in of_run.items() if state_of(verdicts) == "unknown"]
        if len(unknown) == len(of_run):
            return ["nothing can be judged yet"]
        said = [f"{run}: nothing can be judged yet" for run in unknown]
        return said if shown else ["no trouble found", *said]

    def __repr__(self) -> str:
        return "\n".join(["<Report>", *self.lines()])

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own."""
        style = "width: 100%; height: 48rem; border: 1px solid #ccc"
        return (
            f'<iframe title="report" sandbox="allow-scripts allow-downloads" style="{style}" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )


def page_file(path: str | os.PathLike[str]) -> Path:
    """The file of a page that is to be written to a path: in a directory it is report.html."""
    return Path(path) / "report.html" if Path(path).is_dir() else Path(path)

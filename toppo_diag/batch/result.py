"""The result of one entry of a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toppo_diag.batch.manifest import Entry
from toppo_diag.output import Row


@dataclass(frozen=True)
class Result:
    """The result of making or checking one entry.

    Attributes:
        entry: the entry.
        files: names of the files that were made, or compared.
        numbers: the few numbers that the command prints.
        notes: what is missing and why, one line each.
        failures: why the entry could not be made, or how it differs, one line each; empty if all is well.
    """

    entry: Entry
    files: tuple[str, ...] = ()
    numbers: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.entry.name

    def summary(self) -> dict[str, Any]:
        """The line about this entry in the table that the command prints."""
        state = "failed" if self.failures else "ok"
        return {"entry": self.name, "command": self.entry.command, "state": state, "files": list(self.files)}

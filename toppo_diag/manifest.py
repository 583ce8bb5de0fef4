"""A manifest: which figure from which command, dumps, stages and options. TOML, to be copied for another paper."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from toppo_diag.commands import COMMANDS, OF_RUNS, TABLES
from toppo_diag.errors import UsageError
from toppo_diag.request import Request, as_texts

_LISTS = ("stage", "snapshot", "steps", "tasks")
_COMMON = tuple(f.name for f in fields(Request))


@dataclass(frozen=True)
class Entry:
    """One figure or table of a manifest.

    Attributes:
        name: unique; stem of its files.
        title: what it is, for the summary page.
        command: one of `COMMANDS`, `OF_RUNS` or `TABLES`.
        request: dumps and common options; None for a command that needs no dump.
        runs: of a command that takes runs.
        options: the command's own.
    """

    name: str
    title: str
    command: str
    request: Request | None
    runs: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def sources(self) -> tuple[str, ...]:
        """Dumps or runs."""
        return self.request.dumps if self.request else self.runs


@dataclass(frozen=True)
class Manifest:
    """Entries in order, and where they go."""

    path: Path
    out: Path
    entries: tuple[Entry, ...]

    def only(self, names: Sequence[str]) -> Manifest:
        """The manifest cut to some entries; () keeps all.

        Raises:
            UsageError: an entry it does not have.
        """
        known = [entry.name for entry in self.entries]
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"--only {unknown[0]}: {self.path} has no such entry; it has {', '.join(known)}")
        return replace(self, entries=tuple(e for e in self.entries if not names or e.name in names))


def read_manifest(path: Path, out: Path | None = None) -> Manifest:
    """A manifest from its file; local dumps, runs, `published` and `out` are relative to it.

    Args:
        path: the TOML file: `out`, and a table [figures.NAME] an entry, with `command`, `dumps` or `runs`, and options
            by the names that they have on the command line.
        out: in place of the manifest's.

    Raises:
        UsageError: no such file, no TOML, an unknown command or option.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a manifest such as figures/paper.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML ({error})") from None
    if unknown := set(content) - {"out", "figures"}:
        raise UsageError(f"{path}: unknown key {sorted(unknown)[0]!r}; it has out and [figures.NAME] tables")
    tables = content.get("figures", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()) or not tables:
        raise UsageError(f"{path}: names no figures; give [figures.NAME] tables")
    where = path.parent
    entries = tuple(_entry(f"{path}: [figures.{name}]", name, table, where) for name, table in tables.items())
    return Manifest(path, out or where / str(content.get("out", "out")), entries)


def _entry(label: str, name: str, table: Mapping[str, Any], where: Path) -> Entry:
    command = table.get("command")
    makers = COMMANDS | OF_RUNS | TABLES
    if command not in makers:
        raise UsageError(f"{label}: unknown command {command!r}; give one of {', '.join(makers)}")
    own = [p for p in inspect.signature(makers[command]).parameters if p not in ("request", "runs")]
    common = _COMMON if command in COMMANDS else ("runs",) if command in OF_RUNS else ()
    given = {key.replace("-", "_"): value for key, value in table.items() if key not in ("command", "title")}
    if unknown := [key for key in given if key not in (*common, *own)]:
        raise UsageError(f"{label}: {command} has no option {unknown[0]!r}; it has {', '.join((*common, *own))}")
    request = None
    runs: tuple[str, ...] = ()
    if command in OF_RUNS:
        runs = _sources(label, "runs", given, where)
    elif command in COMMANDS:
        dumps = _sources(label, "dumps", given, where)
        chosen: dict[str, Any] = {key: value for key, value in given.items() if key in common}
        chosen |= {key: as_texts(given.get(key)) for key in _LISTS}
        chosen["dumps"] = dumps
        request = Request(**chosen)
    options = {key: str(where / value) if key == "published" else value for key, value in given.items() if key in own}
    return Entry(name, str(table.get("title", name)), command, request, runs, options)


def _sources(label: str, key: str, given: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Dumps or runs, relative to the manifest."""
    names = as_texts(given.get(key))
    if not names:
        raise UsageError(f"{label}: names no {key}; give {key} = [...]")
    return tuple(name if "://" in name else str(where / name) for name in names)

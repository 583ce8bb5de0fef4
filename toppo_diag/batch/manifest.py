"""A manifest: a TOML file that says which figure is made by which command, from which dumps, with which options."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toppo.common.names import suggestion
from toppo_diag.commands import ALL, OF_DUMPS, OF_RUNS, options_of
from toppo_diag.commands.checking import check_options, shown
from toppo_diag.errors import UsageError, bad_option
from toppo_diag.reading.published import paper_directory
from toppo_diag.request import as_texts, name_problem

NAME = "paper.toml"
HERE = Path("figures")
"""The default directory of a manifest and its archives, relative to where the command runs."""


@dataclass(frozen=True)
class Entry:
    """One figure or table of a manifest.

    Attributes:
        name: the stem of the names of its files; no other entry has it.
        title: a description of the entry, for the page.
        command: the name of a command.
        sources: the dumps or runs to read; () for a command that needs none.
        options: the command's options, by their names in Python.
    """

    name: str
    title: str
    command: str
    sources: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The entries of a manifest in order, and the directory for their files."""

    path: Path
    out: Path
    entries: tuple[Entry, ...]

    def only(self, names: Sequence[str]) -> Manifest:
        """The manifest with only some of its entries; () keeps all.

        Raises:
            UsageError: the manifest has no entry of this name.
        """
        known = [entry.name for entry in self.entries]
        if unknown := [name for name in names if name not in known]:
            raise bad_option("only", unknown[0], f"{self.path} has no such entry; it has {', '.join(known)}", known)
        return replace(self, entries=tuple(e for e in self.entries if not names or e.name in names))


def read_manifest(path: str | os.PathLike[str] | None = None, out: Path | None = None) -> Manifest:
    """A manifest from its file. Local dumps, runs, `published` and `out` are relative to the file.

    Args:
        path: the TOML file. It has `out`, and for each entry a table [figures.NAME] with `command`, `dumps` or `runs`,
            and the command's options. None takes figures/paper.toml. If that does not exist, None takes the paper's
            manifest, which comes with toppo. Its archives are looked for in figures/.
        out: the directory for the files, in place of the manifest's.

    Raises:
        UsageError: no such file, no TOML, an unknown command or option.
    """
    if path is None and not (HERE / NAME).is_file():
        return _manifest(paper_directory() / NAME, HERE, out)
    path = HERE / NAME if path is None else Path(path)
    return _manifest(path, path.parent, out)


def _manifest(path: Path, where: Path, out: Path | None) -> Manifest:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a manifest such as figures/paper.toml") from None
    except (ValueError, RecursionError) as error:  # tomllib's own errors, no UTF-8, a number of too many digits
        raise UsageError(f"{path}: is not valid TOML ({error})") from None
    if unknown := set(content) - {"out", "figures"}:
        raise UsageError(f"{path}: unknown key {sorted(unknown)[0]!r}; it has out and [figures.NAME] tables")
    tables = content.get("figures", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()) or not tables:
        raise UsageError(f"{path}: names no figures; give [figures.NAME] tables")
    entries = tuple(_entry(f"{path}: [figures.{name}]", name, table, where) for name, table in tables.items())
    if not isinstance(made_in := content.get("out", "out"), str):
        raise UsageError(f"{path}: `out={shown(made_in)}`: give the directory as a text")
    return Manifest(path, out or where / made_in, entries)


def _entry(label: str, name: str, table: Mapping[str, Any], where: Path) -> Entry:
    if problem := name_problem(name):
        raise UsageError(f"{label}: the entry's name names its files, and {name!r} {problem}")
    command = table.get("command")
    if not isinstance(command, str) or command not in ALL:
        raise UsageError(f"{label}: unknown command {shown(command)!r}: {suggestion(shown(command), ALL)}")
    key = "dumps" if command in OF_DUMPS else "runs" if command in OF_RUNS else None
    known = [*([key] if key else []), *options_of(ALL[command])]
    given = {key.replace("-", "_"): value for key, value in table.items() if key not in ("command", "title")}
    if unknown := [option for option in given if option not in known]:
        raise UsageError(f"{label}: {command} has no option {unknown[0]!r}; it has {', '.join(known)}")
    sources = () if key is None else _sources(label, key, given.pop(key, None), where)
    try:
        check_options(ALL[command], given)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from None
    options = {option: str(where / value) if option == "published" else value for option, value in given.items()}
    return Entry(name, shown(table.get("title", name), 200), command, sources, options)


def _sources(label: str, key: str, given: object, where: Path) -> tuple[str, ...]:
    """The paths of dumps or runs. Local ones are relative to the manifest."""
    listed = isinstance(given, list) and all(isinstance(item, str) for item in given)
    names = as_texts(given) if listed or isinstance(given, str) else ()
    if not names:
        raise UsageError(f"{label}: names no {key}; give {key} = [...], a list of texts")
    return tuple(name if "://" in name else str(where / name) for name in names)

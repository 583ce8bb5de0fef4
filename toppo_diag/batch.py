"""A whole manifest at once: make it, or check that what is on disk is what the dumps give."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toppo.dump import DumpError
from toppo_diag.commands import COMMANDS, OF_RUNS, TABLES
from toppo_diag.errors import DiagnosticError
from toppo_diag.manifest import Entry, Manifest
from toppo_diag.output import require_writable, to_csv, write_product, write_whole
from toppo_diag.reading import progress
from toppo_diag.request import Product, Row
from toppo_diag.schedulers import ProcessPool
from toppo_diag.summary import summary_page

RELATIVE = 1e-6
"""How far a number may lie from the one on disk: other libraries' rounding, carried through a solver."""
ABSOLUTE = 1e-9
"""The same for numbers that are themselves rounding, such as the distances of Figure D.5."""


@dataclass(frozen=True)
class Result:
    """What became of one entry.

    Attributes:
        entry: which.
        files: made, or compared.
        numbers: the headline.
        notes: what is missing.
        failures: why it could not be made, or how it differs; empty if all is well.
    """

    entry: Entry
    files: tuple[str, ...] = ()
    numbers: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the entry."""
        return self.entry.name

    def summary(self) -> dict[str, Any]:
        """One line of the batch's table."""
        state = "failed" if self.failures else "ok"
        return {"entry": self.name, "command": self.entry.command, "state": state, "files": list(self.files)}


def make_all(manifest: Manifest, formats: Sequence[str], jobs: int) -> list[Result]:
    """Make every entry and the summary page; an entry that fails does not stop the others."""
    require_writable(manifest.out)
    results = _each(manifest, jobs, _make, (str(manifest.out), tuple(formats)))
    write_whole(manifest.out / "index.html", summary_page(manifest, results).encode())
    return results


def check_all(manifest: Manifest, jobs: int) -> list[Result]:
    """Compute every entry again and compare its tables with those on disk; write nothing."""
    return _each(manifest, jobs, _check, (str(manifest.out),))


def _each(manifest: Manifest, jobs: int, work: Callable[..., Result], rest: tuple[Any, ...]) -> list[Result]:
    results: dict[str, Result] = {}
    with progress("figures") as done, _pool(min(jobs, len(manifest.entries))) as run:
        for result in run(work, [(entry, *rest) for entry in manifest.entries]):
            results[result.name] = result
            if done is not None:
                done(len(results), len(manifest.entries))
    return [results[entry.name] for entry in manifest.entries]


Runner = Callable[[Callable[..., Result], Sequence[tuple[Any, ...]]], Iterator[Result]]


@contextmanager
def _pool(jobs: int) -> Iterator[Runner]:
    if jobs <= 1:
        yield lambda work, arguments: (work(*a) for a in arguments)
        return
    with ProcessPool(jobs) as pool:

        def run(work: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
            for future in as_completed([pool.submit(work, *a) for a in arguments]):
                yield future.result()

        try:
            yield run
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _produce(entry: Entry) -> Product:
    """An entry's product, under the entry's name."""
    if entry.runs:
        product = OF_RUNS[entry.command](entry.runs, **entry.options)
    elif entry.request is None:
        product = TABLES[entry.command](**entry.options)
    else:
        product = COMMANDS[entry.command](entry.request, **entry.options)
    return replace(product, name=entry.name)


def _make(entry: Entry, out: str, formats: tuple[str, ...]) -> Result:
    try:
        product = _produce(entry)
        files = write_product(product, Path(out), formats)
    except (DiagnosticError, DumpError, ValueError, OSError) as error:
        return Result(entry, failures=(str(error),))
    names = tuple(path.name for path in files)
    return Result(entry, names, tuple(product.numbers), tuple(product.notes), tuple(product.failures))


def _check(entry: Entry, out: str) -> Result:
    try:
        product = _produce(entry)
    except (DiagnosticError, DumpError, ValueError, OSError) as error:
        return Result(entry, failures=(str(error),))
    failures, files = list(product.failures), []
    for suffix, rows in product.tables.items():
        path = Path(out) / f"{entry.name}{suffix}.csv"
        files.append(path.name)
        if not path.is_file():
            failures.append(f"{path} is not there; make it first")
        elif difference := first_difference(path.read_text(), to_csv(rows), product.measured):
            failures.append(f"{path}: {difference}; make it again")
    for ending in product.texts:  # what they say is in the tables that were compared
        path = Path(out) / f"{entry.name}{ending}"
        files.append(path.name)
        if not path.is_file():
            failures.append(f"{path} is not there; make it first")
    return Result(entry, tuple(files), tuple(product.numbers), tuple(product.notes), tuple(failures))


def first_difference(old: str, new: str, measured: Sequence[str] = ()) -> str | None:
    """Where two CSV tables differ by more than rounding, in words; None if they do not.

    Args:
        old: what is on disk.
        new: what the dumps give.
        measured: columns not to compare.
    """
    before, after = (list(csv.DictReader(io.StringIO(text))) for text in (old, new))
    if len(before) != len(after):
        return f"has {len(before)} rows, the dumps give {len(after)}"
    for n, (a, b) in enumerate(zip(before, after, strict=True), start=2):
        if a.keys() != b.keys():
            return f"has columns {', '.join(a)}, the dumps give {', '.join(b)}"
        for column in a:
            if column not in measured and not _same(a[column], b[column]):
                return f"line {n}, {column}: {a[column]} on disk, {b[column]} from the dumps"
    return None


def _same(a: str, b: str) -> bool:
    if a == b:
        return True
    try:
        x, y = float(a), float(b)
    except (TypeError, ValueError):
        return False
    return math.isclose(x, y, rel_tol=RELATIVE, abs_tol=ABSOLUTE)

"""Makes all figures and tables of a manifest, or checks those on disk."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from toppo.common.errors import ToppoError, UsageError
from toppo_diag.batch.manifest import Entry, Manifest, read_manifest
from toppo_diag.batch.page import PAGE, REPORT, summary_page
from toppo_diag.batch.result import Result
from toppo_diag.commands import ALL, COMMANDS
from toppo_diag.commands.checking import MOST, Between, checked
from toppo_diag.commands.report import report
from toppo_diag.output import chosen_formats, require_writable, to_csv, write_text
from toppo_diag.product import Product
from toppo_diag.reading.progress import progress
from toppo_diag.reading.schedulers import ProcessPool
from toppo_diag.request import Texts, as_texts

RELATIVE = 1e-6
"""Largest relative difference to the number on disk that passes. Other library versions round differently."""
ABSOLUTE = 1e-9
"""Largest absolute difference that passes. Some numbers are only rounding, such as the distances of Figure D.5."""


@checked
def figures(
    manifest: str | os.PathLike[str] | None = None,
    *,
    only: Texts = None,
    check: bool = False,
    jobs: Annotated[int, Between(1, MOST)] = 1,
    out: str | os.PathLike[str] | None = None,
    formats: Texts = "pdf,png",
) -> list[Result]:
    """Make all figures and tables of a manifest, a page that says what each was made from, and a report of its dumps.

    Args:
        manifest: the TOML file of figures. The default is figures/paper.toml, or, if that does not exist, the paper's
            manifest, which comes with toppo and takes its archives from figures/data.
        only: only these entries, separated by commas.
        check: compare with the files on disk instead of writing; fails if any number differs.
        jobs: entries made at the same time, each in a process of its own.
        out: directory for the files, in place of the manifest's.
        formats: figure formats, separated by commas: pdf, png, svg.

    Returns:
        The result of each entry, in the order of the manifest.

    Raises:
        UsageError: no such manifest or entry, or a manifest with a mistake.
        OutputError: the directory cannot be written.
    """
    plan = read_manifest(manifest, None if out is None else Path(out)).only(as_texts(only))
    kinds = chosen_formats(as_texts(formats))
    if manifest is None:
        _require_archives(plan)
    return check_all(plan, jobs) if check else make_all(plan, kinds, jobs)


def _require_archives(plan: Manifest) -> None:
    """Say what to type where the paper's manifest is made, and no archive of it is here.

    Raises:
        UsageError: entries need archives, and there is none.
    """
    sources = [source for entry in plan.entries for source in entry.sources]
    if sources and not any(Path(source).exists() for source in sources):
        raise UsageError(
            f"the paper's archives are not here ({sources[0]}): run this in a clone of toppo, "
            "or give a manifest of your own, as `toppo-diag figures my.toml`"
        )


def make_all(manifest: Manifest, formats: Sequence[str], jobs: int) -> list[Result]:
    """The results of making every entry, and then the page. An entry that fails does not stop the others."""
    require_writable(manifest.out)
    results = _each(manifest, jobs, _make, (str(manifest.out), tuple(formats)))
    write_text(summary_page(manifest, results, _report(manifest)), manifest.out / PAGE)
    return results


def _report(manifest: Manifest) -> str | None:
    """The name of the report of every dump that the manifest draws from; None where one report cannot hold them."""
    drawing = [entry for entry in manifest.entries if entry.command in COMMANDS]
    dumps = list(dict.fromkeys(source for entry in drawing for source in entry.sources))
    try:
        if dumps:
            report(dumps, out=manifest.out / REPORT)
        return REPORT if dumps else None
    except ToppoError:  # a dump that cannot be read failed its entries, and runs may share no task
        return None


def check_all(manifest: Manifest, jobs: int) -> list[Result]:
    """The results of computing every entry again and comparing its tables with those on disk. Writes nothing."""
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
    command = ALL[entry.command]
    product = command(entry.sources, **entry.options) if entry.sources else command(**entry.options)
    return replace(product, name=entry.name)


def _make(entry: Entry, out: str, formats: tuple[str, ...]) -> Result:
    try:
        product = _produce(entry)
        files = product.save(out, formats)
    except (ToppoError, ValueError, OSError) as error:
        return Result(entry, failures=(str(error),))
    names = tuple(path.name for path in files)
    return Result(entry, names, tuple(product.headline), tuple(product.notes), tuple(product.failures))


def _check(entry: Entry, out: str) -> Result:
    try:
        product = _produce(entry)
    except (ToppoError, ValueError, OSError) as error:
        return Result(entry, failures=(str(error),))
    failures, files = list(product.failures), []
    for suffix, rows in product.rows.items():
        path = Path(out) / f"{entry.name}{suffix}.csv"
        files.append(path.name)
        if not path.is_file():
            failures.append(f"{path} is not there; make it first")
        elif difference := first_difference(path.read_text(), to_csv(rows), product.measured):
            failures.append(f"{path}: {difference}; make it again")
    for ending in product.texts:  # their content is not compared: it is that of the tables above
        path = Path(out) / f"{entry.name}{ending}"
        files.append(path.name)
        if not path.is_file():
            failures.append(f"{path} is not there; make it first")
    return Result(entry, tuple(files), tuple(product.headline), tuple(product.notes), tuple(failures))


def first_difference(old: str, new: str, measured: Sequence[str] = ()) -> str | None:
    """The first place where two CSV tables differ by more than rounding, in words; None if they do not differ.

    Args:
        old: the table on disk.
        new: the table that the dumps give.
        measured: columns that are not compared.
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

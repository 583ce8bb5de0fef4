"""The command `report`."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from toppo.dump import DumpError, open_dump
from toppo_diag.commands.checking import Between, checked
from toppo_diag.errors import bad_option
from toppo_diag.reporting.document import Report
from toppo_diag.request import Sources, Texts, as_sources, as_texts, check_scheduler

if TYPE_CHECKING:
    from toppo_diag.analysis.findings import Check
    from toppo_diag.analysis.overview import Overview
    from toppo_diag.analysis.recorded import RunRecord
    from toppo_diag.reporting.payload import Group


@checked
def report(
    runs: Sources,
    *,
    out: str | os.PathLike[str] | None = None,
    watch: bool = False,
    interval: Annotated[float, Between(1, 86_400)] = 30.0,
    threshold: Texts = None,
    scheduler: str = "serial",
) -> Report:
    """One page that says what is wrong with a multi-task run, with interactive views.

    The page is one HTML file and needs no network. Findings come first, each with its number, its threshold and since
    when. Then comes what other combiners would do with the same gradients, and then the views. Several runs are shown
    side by side.

    Args:
        runs: run directories, dumps (.zarr), archives (.h5) or URLs.
        out: the file to write, or a directory.
        watch: write the file again until all runs have ended. A page that is open updates by itself.
        interval: with watch, seconds between two writes.
        threshold: thresholds of the findings, as NAME=NUMBER, separated by commas.
        scheduler: where gradients are read: serial, threads:N, processes:N, or the address of a dask scheduler.

    Returns:
        The page. A notebook shows it.

    Raises:
        UsageError: no such threshold, the same run twice, or runs that share no task.
        DumpError: no run at a path, or a damaged one.
        OutputError: the file cannot be written.
    """
    check_scheduler(scheduler)
    if watch and out is None:
        raise bad_option("watch", watch, "give `out` too, the file to write again")
    made = _made(runs, as_texts(threshold), scheduler, interval if watch else None)
    if out is not None:
        made.save(out)
    while watch and not made.complete:
        time.sleep(interval)
        with suppress(DumpError):  # a commit is under way, or the disk is away for a moment
            made = _made(runs, as_texts(threshold), scheduler, interval)
            made.save(str(out))
    return made


def _made(runs: Sources, threshold: tuple[str, ...], scheduler: str, follow: float | None) -> Report:
    from toppo_diag.analysis.budget import MOST_BYTES
    from toppo_diag.analysis.findings import checks
    from toppo_diag.analysis.overview import overview
    from toppo_diag.analysis.tasks import shared
    from toppo_diag.analysis.thresholds import thresholds_of
    from toppo_diag.analysis.what_if import what_if
    from toppo_diag.reading.conditions import told_apart
    from toppo_diag.reading.progress import progress
    from toppo_diag.reading.recorded import read_record
    from toppo_diag.reporting.page import page

    limits = thresholds_of(threshold)
    dumps = [open_dump(source) for source in as_sources(runs)]  # anew each time: a live run goes on
    names = told_apart(dumps)
    with progress("report") as done:
        records = []
        for n, (dump, name) in enumerate(zip(dumps, names, strict=True)):
            records.append(read_record(dump, name, scheduler))
            if done is not None:
                done(n + 1, 3 * len(dumps))
        tasks = shared([record.tasks for record in records])
        kept = [[record.tasks.index(task) for task in tasks] for record in records]
        found, options = [], []
        for n, record in enumerate(records):
            found.append(checks(record, limits))
            options.append({side: what_if(of_side) for side, of_side in record.sides.items()})
            if done is not None:
                done(len(dumps) + 2 * n + 2, 3 * len(dumps))
        most = MOST_BYTES / len(records)
        views = [overview(record, indices, most) for record, indices in zip(records, kept, strict=True)]
    several = len(records) > 1
    left_out = [
        f"{record.name}: {line}" if several else line
        for record, view in zip(records, views, strict=True)
        for line in view.left_out
    ]
    notes = [*_notes(records, tasks), *left_out]
    live = any(not record.complete for record in records)
    return Report(
        html=page(records, found, options, views, kept, _groups(records, views), notes, follow if live else None),
        headline=[_row(record, check) for record, of_run in zip(records, found, strict=True) for check in of_run],
        options=[
            {"run": record.name, "side": side, **{name: _known(value) for name, value in option.columns().items()}}
            for record, of_run in zip(records, options, strict=True)
            for side, (of_side, _) in of_run.items()
            for option in of_side
        ],
        notes=[*notes, *(f"{record.name}: {line}" for record in records for line in record.missing)],
        complete=not live,
    )


def _notes(records: list[RunRecord], tasks: list[str]) -> list[str]:
    """What has to be said where the runs do not have the same tasks."""
    if all(set(record.tasks) == set(tasks) for record in records):
        return []
    return [
        f"The runs have different tasks. The views show the {len(tasks)} that all share; findings are about all tasks."
    ]


def _groups(records: list[RunRecord], views: list[Overview]) -> list[Group]:
    """Runs that differ only in their seed, two or more each."""
    from toppo_diag.analysis.overview import seed_totals
    from toppo_diag.reporting.payload import Group

    groups = []
    for settings in dict.fromkeys(record.group for record in records if record.group):
        members = tuple(n for n, record in enumerate(records) if record.group == settings)
        if len(members) > 1:
            name = f"{records[members[0]].name} and other seeds"
            groups.append(Group(name, members, seed_totals([views[n].totals for n in members])))
    return groups


def _row(record: RunRecord, check: Check) -> dict[str, Any]:
    """A check as a row of a table, with the names of its tasks."""
    return {
        "run": record.name,
        "side": check.side,
        "check": check.kind,
        "verdict": check.verdict,
        "threshold": check.threshold,
        "limit": check.limit,
        "number": _known(check.number),
        "number_low": _known(check.low),
        "number_high": _known(check.high),
        "since": check.since,
        "until": check.until,
        "steps": check.steps,
        "minibatches": check.minibatches,
        "tasks": [record.tasks[t] for t in check.tasks],
        "text": check.text,
    }


def _known(value: Any) -> Any:
    """None in place of a NaN, which JSON does not have."""
    return None if isinstance(value, float) and math.isnan(value) else value

"""`toppo-diag tables`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toppo_diag.commands.options import PUBLISHED, PublishedIn
from toppo_diag.errors import UsageError
from toppo_diag.request import Product, as_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toppo_diag.analysis.layouts import Layout
    from toppo_diag.runs import Run


def tables(
    runs: tuple[str, ...],
    table: Annotated[
        str | None,
        typer.Option(help="Only these, as 2,d5,d10; all that the runs have a place in otherwise.", show_default=False),
    ] = None,
    published: PublishedIn = PUBLISHED,
) -> Product:
    """Tables 2, 3 and D.1 to D.11 with the paper's rows and ours, as Markdown, LaTeX and CSV."""
    from pathlib import Path

    from toppo_diag.analysis.layouts import PROTOCOLS
    from toppo_diag.analysis.tables import number_table, protocol_table
    from toppo_diag.markup import to_latex, to_markdown
    from toppo_diag.published import read_published
    from toppo_diag.runs import align_each, read_runs

    paper = read_published(Path(published))
    found = read_runs(runs)
    wanted = as_texts(table)
    layouts, protocols, left_out = _chosen(wanted, found)
    groups = align_each(found)
    made = [number_table(layout, groups, paper) for layout in layouts]
    if wanted and (empty := [t for t in made if not t.ours]):
        raise UsageError(f"--table {empty[0].stem}: none of these runs belongs in it ({empty[0].title})")
    made = [t for t in made if t.ours]
    made += [protocol_table(number, groups, paper) for number in PROTOCOLS if number in protocols]
    return Product(
        name="table",
        figure=None,
        tables={f"-{t.stem}": t.numbers for t in made},
        texts={
            f"-{t.stem}{kind}": write(t) for t in made for kind, write in ((".md", to_markdown), (".tex", to_latex))
        },
        numbers=[{"table": t.number, "title": t.title, "of ours": ", ".join(t.ours)} for t in made],
        notes=list(dict.fromkeys([*left_out, *(note for t in made for note in t.notes)])),
    )


def _chosen(wanted: Sequence[str], runs: Sequence[Run]) -> tuple[list[Layout], list[str], list[str]]:
    """The tables of numbers and of text to make, and a note on those that hold some of the runs only.

    Raises:
        UsageError: no such table, or runs of another benchmark or reward than it is about.
    """
    from toppo_diag.analysis.layouts import LAYOUTS, PROTOCOLS
    from toppo_diag.runs import one_setting

    benchmarks = {benchmark for layout in LAYOUTS for benchmark, _ in layout.settings}
    stems = {_stem(layout.number): layout for layout in LAYOUTS}
    texts = {_stem(number): number for number in PROTOCOLS}
    for run in runs:
        if run.benchmark not in benchmarks:
            raise UsageError(
                f"{run.path} is of {run.benchmark}: the paper's tables are of {' and '.join(sorted(benchmarks))}"
            )
    if wanted:
        names = [_stem(name) for name in wanted]
        if unknown := [name for name in names if name not in stems | texts]:
            raise UsageError(f"--table {unknown[0]}: no such table; give some of {', '.join([*stems, *texts])}")
        layouts = [layout for stem, layout in stems.items() if stem in names]
        for layout in layouts:
            for run in runs:
                if run.setting not in layout.settings:
                    about = " and ".join(f"{benchmark} under {reward}" for benchmark, reward in layout.settings)
                    raise UsageError(
                        f"--table {_stem(layout.number)} is of {about} rewards and {run.path} of {run.benchmark} "
                        f"under {run.reward}: leave the run out"
                    )
        return layouts, [number for stem, number in texts.items() if stem in names], []
    settings = {run.setting for run in runs}
    layouts = [layout for layout in LAYOUTS if settings <= set(layout.settings)]
    if not layouts:
        one_setting(runs)
    partial = [layout.number for layout in LAYOUTS if layout not in layouts and settings & set(layout.settings)]
    notes = [
        f"Table {', '.join(partial)}: left out, of one benchmark and reward alone; give those runs by themselves"
    ] * bool(partial)
    return layouts, list(PROTOCOLS), notes


def _stem(number: str) -> str:
    """ "D.10", "d10" and "table-d10" are one."""
    return number.lower().removeprefix("table-").replace(".", "")

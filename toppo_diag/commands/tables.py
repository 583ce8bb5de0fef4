"""The command `tables`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toppo_diag.commands.command import instrument
from toppo_diag.errors import UsageError, bad_option
from toppo_diag.product import Product
from toppo_diag.request import Sources, Texts, as_paths, as_texts, several, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toppo_diag.analysis.paper_tables import TableForm
    from toppo_diag.analysis.runs import Run


@instrument
def tables(runs: Sources, *, table: Texts = None, published: str | None = None) -> Product:
    """The paper's result tables with our rows, as Markdown, LaTeX and CSV (Tables 2, 3, B.2 and D.1 to D.11).

    Each table takes the runs of its own benchmarks and rewards.

    Args:
        table: only these tables, such as 2,d5,d10; by default all tables in which some of the runs belong.
        published: directory of the paper's numbers, in place of the numbers that come with toppo.
    """
    from toppo_diag.analysis.paper_tables import PROTOCOLS
    from toppo_diag.analysis.runs import align_each
    from toppo_diag.analysis.tables import number_table, protocol_table
    from toppo_diag.markup import to_latex, to_markdown
    from toppo_diag.reading.published import read_published
    from toppo_diag.reading.runs import read_runs

    paper = read_published(published)
    found = read_runs(as_paths(runs))
    wanted = as_texts(table)
    forms, protocols = _chosen(wanted, found)
    groups = align_each(found)
    made = [number_table(form, groups, paper) for form in forms]
    if wanted and (empty := [t for t in made if not t.ours]):
        raise bad_option("table", empty[0].stem, f"none of these runs belongs in it ({empty[0].title})")
    made = [t for t in made if t.ours]
    made += [protocol_table(number, groups, paper) for number in PROTOCOLS if number in protocols]
    return Product(
        name=stem("table", several([run.name for run in found])),
        draw=None,
        rows={f"-{t.stem}": t.numbers for t in made},
        texts={
            f"-{t.stem}{kind}": write(t) for t in made for kind, write in ((".md", to_markdown), (".tex", to_latex))
        },
        headline=[{"table": t.number, "title": t.title, "of ours": ", ".join(t.ours)} for t in made],
        notes=list(dict.fromkeys(note for t in made for note in t.notes)),
    )


def _chosen(wanted: Sequence[str], runs: Sequence[Run]) -> tuple[list[TableForm], list[str]]:
    """The tables of numbers and of text to make.

    Raises:
        UsageError: no such table, or a run that belongs in no table.
    """
    from toppo_diag.analysis.paper_tables import PROTOCOLS, TABLE_FORMS

    benchmarks = {benchmark for form in TABLE_FORMS for benchmark, _ in form.settings}
    for run in runs:
        if run.benchmark not in benchmarks:
            raise UsageError(
                f"{run.path} is a run on {run.benchmark}, but the paper's tables are about "
                f"{' and '.join(sorted(benchmarks))}; leave the run out"
            )
    stems = {_stem(form.number): form for form in TABLE_FORMS}
    texts = {_stem(number): number for number in PROTOCOLS}
    names = [_stem(name) for name in wanted] or [*stems, *texts]
    if unknown := [name for name in names if name not in stems | texts]:
        raise bad_option("table", unknown[0], f"no such table; give some of {', '.join([*stems, *texts])}")
    settings = {run.setting for run in runs}
    forms = [form for stem, form in stems.items() if stem in names]
    if wanted and (other := [form for form in forms if not settings & set(form.settings)]):
        about = " and ".join(f"{benchmark} under {reward}" for benchmark, reward in other[0].settings)
        given = " and ".join(f"{benchmark} under {reward}" for benchmark, reward in sorted(settings))
        raise bad_option(
            "table", _stem(other[0].number), f"is about {about} rewards, but the runs are on {given}; add a run"
        )
    return forms, [number for stem, number in texts.items() if stem in names]


def _stem(number: str) -> str:
    """The short name of a table: "d10" for "D.10", "d10" and "table-d10"."""
    return number.lower().removeprefix("table-").replace(".", "")

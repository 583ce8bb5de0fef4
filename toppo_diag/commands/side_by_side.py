"""One command for one run or for several, whose pictures stand below each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from toppo.dump import Dump
from toppo_diag.output import Row
from toppo_diag.product import Product
from toppo_diag.request import Request, stem


def side_by_side(command: str, request: Request, one: Callable[[Dump], Product]) -> Product:
    """The product of one dump; of several, their pictures in one, and their tables with a first column `run`.

    Args:
        command: its name.
        request: the dumps.
        one: makes the product of a dump.

    Raises:
        UsageError: a dump is given twice.
    """
    from toppo_diag.plots.stack import stacked_figure
    from toppo_diag.reading.conditions import run_names, told_apart

    opened = request.open_all()
    if len(opened) == 1:
        return one(opened[0])
    made = dict(zip(told_apart(opened), map(one, opened), strict=True))
    draws = {name: product.draw for name, product in made.items() if product.draw is not None}
    suffixes = list(dict.fromkeys(suffix for product in made.values() for suffix in product.rows))
    return Product(
        name=stem(command, request.side or "", run_names(opened)),
        draw=lambda: stacked_figure(draws),
        rows={
            suffix: _told_apart({name: p.rows[suffix] for name, p in made.items() if suffix in p.rows})
            for suffix in suffixes
        },
        headline=_told_apart({name: product.headline for name, product in made.items()}),
        notes=list(dict.fromkeys(note for product in made.values() for note in product.notes)),
    )


def _told_apart(rows: dict[str, Sequence[Row]]) -> list[Row]:
    return [{"run": name, **row} for name, own in rows.items() for row in own]

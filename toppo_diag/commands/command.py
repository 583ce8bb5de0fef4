"""What all instruments have in common: checked options, and a file name that says what was asked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec

from toppo_diag.commands.checking import check_options, option_types
from toppo_diag.product import Product
from toppo_diag.request import as_texts, file_part

P = ParamSpec("P")

_NAMED_ALREADY = ("side", "figure")
"""Options that a command's own stem names."""
_NAMES = ("task", "task_j", "run", "condition", "label")
"""Columns whose values a figure may show."""
_SAME_PICTURE = ("scheduler", "table", "to")
"""Options that change no file, or whose files have names of their own."""


def instrument(make: Callable[P, Product]) -> Callable[P, Product]:
    """A command whose options are checked, and whose files are named by every option that is not at its default.

    So two different questions never write the same file.
    """
    defaults = {p.name: p.default for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY}

    @functools.wraps(make)
    def asked(*sources: P.args, **options: P.kwargs) -> Product:
        check_options(make, options)
        product = make(*sources, **options)
        given = {option: options[option] for option in option_types(make) if option in options}  # in one order
        name = "-".join([product.name, *_parts(given, defaults)])
        return replace(product, name=name, notes=list(dict.fromkeys([*product.notes, *_font_notes(product)])))

    return asked


def _parts(options: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """The part of a file's name for each option that was given and is not at its default."""
    parts = []
    for name, value in options.items():
        given = as_texts(value)
        if name in (*_NAMED_ALREADY, *_SAME_PICTURE) or not given or given == as_texts(defaults.get(name)):
            continue
        label = [] if name in ("layer", "stage") else [name.replace("_", "-")]  # these two speak for themselves
        parts.append("-".join([*label, *([] if value is True else [file_part("+".join(given))])]))
    return parts


def _font_notes(product: Product) -> list[str]:
    """A note on the names of tasks and runs that no font of this system draws."""
    names = {
        str(value)
        for rows in product.rows.values()
        for row in rows
        for column, value in row.items()
        if column in _NAMES and not str(value).isascii()
    }
    if product.draw is None or not names:
        return []
    from toppo_diag.plots.style import undrawn

    missing = undrawn(sorted(names))
    return [f"no font here draws {missing}: the figure has boxes; install one that does, such as Noto Sans CJK"] * bool(
        missing
    )

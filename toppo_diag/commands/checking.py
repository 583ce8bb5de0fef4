"""One check of every option: its type and its bounds are those that the command's signature states.

The command line, a manifest and a notebook all pass through here, so that a wrong value is the same line everywhere.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from toppo_diag.errors import bad_option
from toppo_diag.request import Selection, Texts

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Between:
    """The least and the greatest value of a numeric option. It stands in the option's `Annotated` type."""

    least: float
    most: float


MOST = 1_000_000
"""The greatest number of minibatches, snapshots or processes that an option takes."""


def checked(command: Callable[P, R]) -> Callable[P, R]:
    """The same function, which refuses options of a wrong type or beyond their bounds before any work.

    Raises:
        UsageError: naming the option, its value and what it may be.
    """

    @functools.wraps(command)
    def refusing(*sources: P.args, **options: P.kwargs) -> R:
        check_options(command, options)
        return command(*sources, **options)

    return refusing


def check_options(command: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Compare options with a command's signature. Names that the command does not know are left to the command.

    Raises:
        UsageError: a value of a wrong type, or beyond its bounds.
    """
    rules = option_types(command)
    for name, value in options.items():
        if name in rules:
            _check(name, value, rules[name])


def option_types(command: Callable[..., Any]) -> dict[str, Any]:
    """The type of each option of a command: its own, then those of a `Selection` where it takes one."""
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    own = {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    selects = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return own | (get_type_hints(Selection) if selects else {})


def _check(name: str, value: Any, hint: Any) -> None:
    bounds: Between | None = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)[:2]
    if hint == Texts:
        if not _is_texts(value):
            raise bad_option(name, shown(value), "give a text, or a list of texts")
        return
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    if bool in kinds:
        if not isinstance(value, bool):
            raise bad_option(name, shown(value), "give true or false")
    elif int in kinds or float in kinds:
        _check_number(name, value, bounds, whole=float not in kinds)
    elif not isinstance(value, tuple(str if kind is str else os.PathLike for kind in kinds if kind is not type(None))):
        raise bad_option(name, shown(value), "give a text")


def _check_number(name: str, value: Any, bounds: Between | None, *, whole: bool) -> None:
    kind = "whole number" if whole else "finite number"
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise bad_option(name, shown(value), f"give a {kind}")
    if bounds is not None and value < bounds.least:
        raise bad_option(name, shown(value), f"must be at least {bounds.least:g}")
    if bounds is not None and value > bounds.most:
        raise bad_option(name, shown(value), f"must be at most {bounds.most:g}")


def _is_texts(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(isinstance(item, (str, Real)) and not isinstance(item, bool) for item in value)
    return value is None or (isinstance(value, (str, Real)) and not isinstance(value, bool))


def shown(value: Any, length: int = 60) -> str:
    """A value in a message: its start, where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a number of more than 30 digits"  # Python refuses to print thousands of them
    try:
        text = str(value)
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 3]}..."

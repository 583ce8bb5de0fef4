"""Where scalars go besides the CSV file: other people's displays and formats. One file for each.

A sink takes a long table with the columns step, side, name, task and value. Its package is an optional extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from toppo_diag.errors import DiagnosticError, bad_option
from toppo_diag.output import Row

Sink = Callable[[Sequence[Row], str, Path], Path]
"""(long table, name of its axis of steps, path without an ending) -> the file or directory that it wrote."""

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "parquet": "pyarrow"}
"""Sink, which is also the name of the extra -> the package that it needs."""
CSV = "csv"
"""Every table is written as a CSV file anyway."""


def chosen_sinks(to: Sequence[str]) -> list[Sink]:
    """The sinks of these names.

    Raises:
        UsageError: there is no such sink.
        DiagnosticError: the package of a sink is not installed.
    """
    known = [CSV, *PACKAGES]
    if unknown := [name for name in to if name not in known]:
        raise bad_option("to", unknown[0], f"give some of {', '.join(known)}", known)
    wanted = [name for name in PACKAGES if name in to]
    for name in wanted:
        if find_spec(PACKAGES[name]) is None:
            raise DiagnosticError(f"`to={name}` needs {PACKAGES[name]}: pip install 'toppo[{name}]'")
    return [import_module(f"{__name__}.{name}").write for name in wanted]


__all__ = ["Sink", "chosen_sinks"]

"""Directives that read the reference of both command lines, and of the options of a run, from the code.

`command-line` takes a typer app as `package.module:app`; `train-config` takes nothing. Sphinx-click cannot do this:
typer carries a click of its own, and sphinx-click accepts only commands of the installed click.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class CommandLine(SphinxDirective):
    """A section for each command: usage, what it does, a table of its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Sections for the commands, in the order of `--help`."""
        import typer

        module, _, name = self.arguments[0].partition(":")
        group = typer.main.get_command(getattr(importlib.import_module(module), name))
        program = "toppo" if module.startswith("toppo.") else "toppo-diag"
        return [node for command in group.commands.values() for node in self._section(program, command)]

    def _section(self, program: str, command: Any) -> Iterator[nodes.Node]:
        title = f"{program} {command.name}"
        section = nodes.section(ids=[nodes.make_id(title)], names=[title])
        section += nodes.title(title, "", nodes.literal(title, title))
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            section += text(" ".join(paragraph.split()))
        pieces = [_value(p, command) for p in command.params if not p.opts[0].startswith("-")]
        usage = " ".join([title, *pieces, "[OPTIONS]"])
        section += nodes.literal_block(usage, usage, language="text")
        rows = [(_names(p, command), _help(p)) for p in command.params]
        section += table(("Argument or option", "Meaning"), rows, (35, 65))
        yield section


def _value(parameter: Any, command: Any) -> str:
    """What stands for a parameter's value, such as RUN or INTEGER."""
    if not parameter.opts[0].startswith("-"):
        return str(parameter.metavar or parameter.name.upper())
    context = command.make_context(command.name, [], resilient_parsing=True)
    return str(parameter.metavar or parameter.display_type(context)).upper()


def _names(parameter: Any, command: Any) -> str:
    value = _value(parameter, command)
    if not parameter.opts[0].startswith("-"):
        return f"`{value}`"
    names = ", ".join(f"`{flag}`" for flag in [*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} `{value}`"


def _help(parameter: Any) -> str:
    """The help text, with the default where `--help` shows it."""
    shown = " ".join((parameter.help or "").split())
    if parameter.show_default and parameter.default not in (None, False, ()) and not callable(parameter.default):
        shown += f" Default: `{parameter.default}`."
    return shown


class TrainConfigOptions(SphinxDirective):
    """A table for each group of a run's options: name, default, meaning, allowed values."""

    def run(self) -> list[nodes.Node]:
        """The tables, in the order of `toppo train --help`."""
        from toppo.training.config import FIELDS

        groups: dict[str, list[tuple[str, ...]]] = {}
        for name, field in FIELDS.items():
            about = field.metadata
            default = field.default if about["stands_for"] is None else about["stands_for"]
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            code = shown if about["stands_for"] else f"`{shown}`"
            choices = about["choices"]
            help = about["help"] + (f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else "")
            groups.setdefault(about["panel"], []).append((f"`{name}`", code, help))
        out: list[nodes.Node] = []
        for group, rows in groups.items():
            out += [nodes.rubric(group, group), table(("Option", "Default", "Meaning"), rows, (25, 25, 50))]
        return out


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]], widths: tuple[int, ...]) -> nodes.table:
    """A table of texts in which backticks mark code."""
    group = nodes.tgroup(cols=len(titles))
    group += [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead(), nodes.tbody()
    for part, lines in ((head, [titles]), (body, rows)):
        for line in lines:
            row = nodes.row()
            for cell in line:
                row += nodes.entry("", text(cell))
            part += row
    group += [head, body]
    return nodes.table("", group, classes=["colwidths-given"])


_FLAG = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*)")


def text(text: str) -> nodes.paragraph:
    """A paragraph of a text in which backticks, and flags without them, mark code."""
    out = nodes.paragraph()
    for i, piece in enumerate(_FLAG.sub(r"`\1`", text).split("`")):
        if piece:
            out += nodes.literal(piece, piece) if i % 2 else nodes.Text(piece)
    return out


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("train-config", TrainConfigOptions)
    return {"parallel_read_safe": True}

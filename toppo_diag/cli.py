"""The command line `toppo-diag`. It parses options, calls the functions of `toppo_diag`, and prints the results."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from toppo.common import terminal
from toppo.common.docstrings import arguments, description
from toppo_diag.batch.make import figures as make_figures
from toppo_diag.commands import ALL, DUMP_TABLES, RUN_TABLES, TABLES, store
from toppo_diag.commands import report as reporting
from toppo_diag.commands import watch as watching
from toppo_diag.output import json_text
from toppo_diag.product import Product
from toppo_diag.reporting.document import page_file
from toppo_diag.request import One, Selection, Sources, Texts, as_texts

OUT = Path("figures/out")
app = terminal.App(
    "Draw figures and tables from a gradient dump, and check it. Works offline, without torch. "
    "DUMP is a run directory (finished or still running), a .zarr, an .h5 archive or a URL."
)


def main() -> None:
    """Run the command line. Every error that a user can cause is one line on stderr and a non-zero exit code."""
    terminal.run(app)


@app.callback()
def _program(version: Annotated[bool, terminal.version_option("toppo-diag")] = False) -> None:
    """Options of the program itself."""


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Dump = Annotated[str, typer.Argument(help="A run directory, a .zarr, an .h5 archive or a URL.", metavar="DUMP")]
_ARGUMENTS = {
    "dumps": Annotated[
        list[str], typer.Argument(help="Run directories, dumps (.zarr), archives (.h5) or URLs.", metavar="DUMP")
    ],
    "runs": Annotated[list[str], typer.Argument(help="Run directories, or archives (.h5) of runs.", metavar="RUN")],
}


def _saving(
    out: Path = OUT, formats: str = "pdf,png", name: str | None = None, show: bool = False, as_json: bool = False
) -> None:
    """The options of every command that makes files.

    Args:
        out: directory for figures and tables.
        formats: figure formats, separated by commas: pdf, png, svg.
        name: how the files are named, without the ending. By default the name says what was asked for.
        show: open the picture, or else the first file, with the program that this system has for it.
        as_json: print the result as JSON.
    """


def _helps(documented: object) -> dict[str, str]:
    """The help of each option: what the docstring says of the argument, as a sentence."""
    return {name: text[:1].upper() + text[1:] for name, text in arguments(documented).items()}


def _register(name: str, make: Callable[..., Product]) -> None:
    """Add a function as a command: with its own arguments, those of a `Selection`, and those of `_saving`."""
    documented = {**_helps(Selection), **_helps(_saving), **_helps(make)}
    parameters = [
        p
        for p in _parameters(_saving, documented)
        if name not in DUMP_TABLES | RUN_TABLES | TABLES or p.name not in ("formats",)
    ]
    parameters = [*_parameters(make, documented), *parameters]
    lists = {p.name for p in parameters if get_args(p.annotation)[0] == list[str] | None}
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters.append(context)

    def command(context: typer.Context, **given: Any) -> None:
        for option in lists & given.keys():  # an option that is given twice means the same as commas
            given[option] = ",".join(given[option]) if given[option] else None
        out, formats, as_json = given.pop("out"), given.pop("formats", "pdf,png"), given.pop("as_json")
        name_of_files, show = given.pop("name"), given.pop("show")
        sources = [given.pop(argument) for argument in _ARGUMENTS if argument in given]
        if context.args:  # more than one, for a command that takes one: its own message says so
            sources = [[*sources, *context.args]]
        _finish(lambda: make(*sources, **given), out, formats, name_of_files, show, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    extra = bool(_takes_one(make))
    app.command(name, help=description(make), context_settings={"allow_extra_args": extra})(command)


def _parameters(function: Callable[..., Any], documented: dict[str, str]) -> list[inspect.Parameter]:
    """The parameters of a function in the form that the command line takes."""
    hints = get_type_hints(function) | _takes_one(function)
    found: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            defaults: dict[str, Any] = dict.fromkeys(Selection.__annotations__) | {"scheduler": "serial"}
            options = {n: (hint, defaults[n]) for n, hint in get_type_hints(Selection).items()}
        else:
            options = {parameter.name: (hints[parameter.name], parameter.default)}
        for name, (hint, default) in options.items():
            found.append(_parameter(name, hint, default, documented.get(name, "")))
    return found


def _takes_one(function: Callable[..., Any]) -> dict[str, Any]:
    """The argument of a command that takes one dump at a time."""
    return {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if hint == One}


def _parameter(name: str, hint: Any, default: Any, text: str) -> inspect.Parameter:
    if hint in (Sources, One):
        annotation: Any = Dump if hint == One else _ARGUMENTS[name]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    if hint == Texts and default is not None:
        default = list(as_texts(default))
    flag = {"formats": "--format", "as_json": "--json", "show": "--open"}.get(name, f"--{name.replace('_', '-')}")
    option = typer.Option(flag, help=text, show_default=default is not None and default != "")
    kind = Annotated[_plain(hint), option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _plain(hint: Any) -> Any:
    """The type that typer reads for a Python annotation. Lists of texts and paths are one text on the command line."""
    if hint == Texts:
        return list[str] | None
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] | None if len(kinds) == 1 else str | None
    return hint


def _finish(make: Callable[[], Product], out: Path, formats: str, name: str | None, show: bool, as_json: bool) -> None:
    """Run a command, save its files and print their names. If it is a check that failed, the exit code is 1."""
    from toppo_diag.output import chosen_formats, chosen_name, require_writable, table_lines

    kinds = chosen_formats(as_texts(formats))
    chosen_name(name)
    require_writable(out)
    product = make()
    made = [str(path) for path in product.save(out, kinds, name)]
    known = terminal.flags(app)
    notes = [terminal.with_flags(note, known) for note in product.notes]
    if as_json:
        answer = {"files": made, "numbers": product.headline, "notes": notes, "failures": product.failures}
        print(json_text(answer))
    else:
        print("\n".join([*table_lines(product.headline), *(f"note: {note}" for note in notes), *made]))
    for failure in product.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if show:
        _open(made)
    if product.failures:
        raise typer.Exit(1)


def _open(made: list[str]) -> None:
    """Show the picture that most programs can show, or the first file where there is no picture."""
    pictures = [file for kind in ("png", "pdf", "svg") for file in made if file.endswith(f".{kind}")]
    file = [*pictures, *made][0]
    try:
        opened = typer.launch(file) == 0
    except OSError:
        opened = False
    if not opened:
        print(f"note: this system has no program to open {file}", file=sys.stderr)


@app.command("info", help=description(store.info))
def _info(dump: Dump, as_json: AsJson = False) -> None:
    facts = store.info(dump)
    if as_json:
        print(json_text(facts))
    else:
        from toppo_diag.screen import screen

        print("\n".join(screen(facts)))


@app.command("verify", help=f"{description(store.verify)} The exit code is 1 if the dump is damaged.")
def _verify(dump: Dump, as_json: AsJson = False) -> None:
    report = store.verify(dump)
    if as_json:
        print(json_text(dataclasses.asdict(report)))
    else:
        print("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(1)


_EXPORT = _helps(store.export)


@app.command("export", help=description(store.export))
def _export(
    dump: Dump,
    archive: Annotated[Path, typer.Argument(help=_EXPORT["archive"])],
    slabs: Annotated[bool, typer.Option("--slabs", help=_EXPORT["slabs"])] = False,
    keepbits: Annotated[int | None, typer.Option(help=_EXPORT["keepbits"])] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_EXPORT["overwrite"])] = False,
    as_json: AsJson = False,
) -> None:
    made = store.export(dump, archive, slabs=slabs, keepbits=keepbits, overwrite=overwrite)
    size = made.stat().st_size
    print(json_text({"file": str(made), "bytes": size}) if as_json else f"{made} ({size / 1e6:.1f} MB)")


for _name, _command in ALL.items():
    _register(_name, _command)

_FIGURES = _helps(make_figures)


@app.command("figures", help=description(make_figures))
def _figures(
    manifest: Annotated[Path | None, typer.Argument(help=_FIGURES["manifest"], show_default=False)] = None,
    only: Annotated[str | None, typer.Option(help=_FIGURES["only"], show_default=False)] = None,
    check: Annotated[bool, typer.Option("--check", help=_FIGURES["check"])] = False,
    jobs: Annotated[int, typer.Option(help=_FIGURES["jobs"])] = 1,
    out: Annotated[Path | None, typer.Option(help=_FIGURES["out"])] = None,
    formats: Annotated[str, typer.Option("--format", help=_FIGURES["formats"])] = "pdf,png",
    as_json: AsJson = False,
) -> None:
    from toppo_diag.batch.manifest import read_manifest
    from toppo_diag.batch.page import PAGE
    from toppo_diag.output import table_lines

    results = make_figures(manifest, only=only, check=check, jobs=jobs, out=out, formats=formats)
    if as_json:
        print(json_text([result.summary() for result in results]))
    else:
        print("\n".join(table_lines([{**result.summary(), "files": ", ".join(result.files)} for result in results])))
        if not check:
            print(read_manifest(manifest, out).out / PAGE)
    for result in results:
        for failure in result.failures:
            print(f"failed: {result.name}: {failure}", file=sys.stderr)
    if any(result.failures for result in results):
        raise typer.Exit(1)


_REPORT = _helps(reporting.report)


@app.command("report", help=description(reporting.report))
def _report(
    runs: Annotated[list[str], typer.Argument(help=_REPORT["runs"], metavar="RUN")],
    out: Annotated[Path, typer.Option(help=_REPORT["out"])] = Path("report.html"),
    watch: Annotated[bool, typer.Option("--watch", help=_REPORT["watch"])] = False,
    interval: Annotated[float, typer.Option(help=_REPORT["interval"])] = 30.0,
    threshold: Annotated[list[str] | None, typer.Option(help=_REPORT["threshold"])] = None,
    scheduler: Annotated[str, typer.Option(help=_REPORT["scheduler"])] = "serial",
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    out = page_file(out)
    if watch:
        print(f"writing {out} every {interval:g} s until the run ends; Ctrl-C stops", file=sys.stderr)
    given = ",".join(threshold or ())
    made = reporting.report(runs, out=out, watch=watch, interval=interval, threshold=given, scheduler=scheduler)
    if as_json:
        answer = {"files": [str(out)], "numbers": made.headline, "what_if": made.options, "notes": made.notes}
        print(json_text(answer))
    else:
        print("\n".join([*made.lines(), str(out)]))
    if show:
        _open([str(out)])


_WATCH = _helps(watching.watch)


@app.command("watch", help=description(watching.watch))
def _watch(
    dump: Annotated[str, typer.Argument(help=_WATCH["dump"], metavar="DUMP")],
    interval: Annotated[float, typer.Option(help=_WATCH["interval"])] = 5.0,
    once: Annotated[bool, typer.Option("--once", help=_WATCH["once"])] = False,
    as_json: AsJson = False,
) -> None:
    from toppo_diag.reading.live import look

    if as_json:
        print(json_text(look(dump).summary()))
    else:
        watching.watch(dump, interval=interval, once=once)

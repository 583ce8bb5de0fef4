"""The command line `toppo-diag`. It parses options, calls the functions of `toppo_diag`, and prints the results."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from toppo.common import terminal
from toppo.common.docstrings import arguments, description
from toppo_diag.batch.make import figures as make_figures
from toppo_diag.commands import ALL, RUN_TABLES, TABLES, store
from toppo_diag.commands import watch as watching
from toppo_diag.product import Product
from toppo_diag.request import Selection, Sources, Texts, as_texts

OUT = Path("figures/out")
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Draw figures and tables from a gradient dump, and check it. Works offline, without torch. "
    "DUMP is a run directory (finished or still running), a .zarr, an .h5 archive or a URL.",
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
    "dumps": typer.Argument(help="Run directories, dumps (.zarr), archives (.h5) or URLs.", metavar="DUMP"),
    "runs": typer.Argument(help="Run directories, or archives (.h5) of runs.", metavar="RUN"),
}


def _saving(out: Path = OUT, formats: str = "pdf,png", as_json: bool = False) -> None:
    """The options of every command that makes files.

    Args:
        out: directory for figures and tables.
        formats: figure formats, separated by commas: pdf, png, svg.
        as_json: print the result as JSON.
    """


def _register(name: str, make: Callable[..., Product]) -> None:
    """Add a function as a command: with its own arguments, those of a `Selection`, and those of `_saving`."""
    documented = {**arguments(Selection), **arguments(_saving), **arguments(make)}
    parameters = [p for p in _parameters(_saving, documented) if name not in RUN_TABLES | TABLES or p.name != "formats"]
    parameters = [*_parameters(make, documented), *parameters]

    def command(**given: Any) -> None:
        out, formats, as_json = given.pop("out"), given.pop("formats", "pdf,png"), given.pop("as_json")
        sources = [given.pop(argument) for argument in _ARGUMENTS if argument in given]
        _finish(lambda: make(*sources, **given), out, formats, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name, help=description(make))(command)


def _parameters(function: Callable[..., Any], documented: dict[str, str]) -> list[inspect.Parameter]:
    """The parameters of a function in the form that the command line takes."""
    hints = get_type_hints(function)
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


def _parameter(name: str, hint: Any, default: Any, text: str) -> inspect.Parameter:
    if hint == Sources:
        annotation: Any = Annotated[list[str], _ARGUMENTS[name]]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    if isinstance(default, tuple):
        default = ",".join(default)
    flag = {"formats": "--format", "as_json": "--json"}.get(name, f"--{name.replace('_', '-')}")
    option = typer.Option(flag, help=text[:1].upper() + text[1:], show_default=default is not None and default != "")
    kind = Annotated[_plain(hint), option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _plain(hint: Any) -> Any:
    """The type that typer reads for a Python annotation. Lists of texts and paths are one text on the command line."""
    if hint == Texts:
        return str | None
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] | None if len(kinds) == 1 else str | None
    return hint


def _finish(make: Callable[[], Product], out: Path, formats: str, as_json: bool) -> None:
    """Run a command, save its files and print their names. If it is a check that failed, the exit code is 1."""
    from toppo_diag.output import chosen_formats, require_writable, table_lines

    kinds = chosen_formats(as_texts(formats))
    require_writable(out)
    product = make()
    made = [str(path) for path in product.save(out, kinds)]
    known = terminal.flags(app)
    notes = [terminal.with_flags(note, known) for note in product.notes]
    if as_json:
        answer = {"files": made, "numbers": product.headline, "notes": notes, "failures": product.failures}
        print(json.dumps(answer))
    else:
        print("\n".join([*table_lines(product.headline), *(f"note: {note}" for note in notes), *made]))
    for failure in product.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if product.failures:
        raise typer.Exit(1)


@app.command("info", help=description(store.info))
def _info(dump: Dump, as_json: AsJson = False) -> None:
    facts = store.info(dump)
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name:<14} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


@app.command("verify", help=f"{description(store.verify)} The exit code is 1 if the dump is damaged.")
def _verify(dump: Dump, as_json: AsJson = False) -> None:
    report = store.verify(dump)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(1)


_EXPORT = arguments(store.export)


@app.command("export", help=description(store.export))
def _export(
    dump: Dump,
    archive: Annotated[Path, typer.Argument(help=_EXPORT["archive"])],
    slabs: Annotated[bool, typer.Option("--slabs", help=_EXPORT["slabs"])] = False,
    keepbits: Annotated[int | None, typer.Option(help=_EXPORT["keepbits"])] = None,
    as_json: AsJson = False,
) -> None:
    made = store.export(dump, archive, slabs=slabs, keepbits=keepbits)
    size = made.stat().st_size
    print(json.dumps({"file": str(made), "bytes": size}) if as_json else f"{made} ({size / 1e6:.1f} MB)")


for _name, _command in ALL.items():
    _register(_name, _command)

_FIGURES = arguments(make_figures)


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
        print(json.dumps([result.summary() for result in results]))
    else:
        print("\n".join(table_lines([{k: _shown(v) for k, v in result.summary().items()} for result in results])))
        if not check:
            print(read_manifest(manifest, out).out / PAGE)
    for result in results:
        for failure in result.failures:
            print(f"failed: {result.name}: {failure}", file=sys.stderr)
    if any(result.failures for result in results):
        raise typer.Exit(1)


_WATCH = arguments(watching.watch)


@app.command("watch", help=description(watching.watch))
def _watch(
    dump: Annotated[str, typer.Argument(help=_WATCH["dump"], metavar="DUMP")],
    interval: Annotated[float, typer.Option(help=_WATCH["interval"])] = 5.0,
    once: Annotated[bool, typer.Option("--once", help=_WATCH["once"])] = False,
    as_json: AsJson = False,
) -> None:
    from toppo_diag.reading.live import look

    if as_json:
        print(json.dumps(look(dump).summary()))
    else:
        watching.watch(dump, interval=interval, once=once)

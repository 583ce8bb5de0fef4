"""`toppo-diag`: what a gradient dump shows. Every command does one thing, prints what it made, and has --json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from toppo_diag.commands import COMMANDS, RUN_FIGURES, RUN_TABLES
from toppo_diag.errors import DiagnosticError
from toppo_diag.request import Product, Request, as_texts

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What a gradient dump shows: the paper's mechanism figures and the numbers behind them, offline, without "
    "torch. DUMP is a run directory (finished or live), a .zarr, an .h5 archive or a URL.",
)


def main() -> None:
    """Entry point: every error a user can cause ends in one line on stderr and a non-zero exit."""
    try:
        # Outside its standalone mode typer hands back what an Exit, or its own answer to Ctrl-C, said.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    from toppo.dump import DumpError

    if hasattr(error, "format_message"):  # what typer raises of itself
        message, code = error.format_message(), 2
    elif isinstance(error, DiagnosticError):
        message, code = str(error), error.exit_code
    elif isinstance(error, (DumpError, ValueError, OSError)):
        message, code = str(error), 1
    elif isinstance(error, ImportError):  # what fsspec needs for a URL's protocol is the user's to install
        message, code = f"{error}; pip install what is missing", 1
    else:
        raise error
    print(f"error: {message}", file=sys.stderr)
    return code


Dumps = Annotated[list[str], typer.Argument(help="Runs, dumps (.zarr), archives (.h5) or URLs.", metavar="DUMP...")]
Runs = Annotated[list[str], typer.Argument(help="Run directories, or archives (.h5) of them.", metavar="RUN...")]
Out = Annotated[Path, typer.Option(help="Directory for figures and tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")]
Side = Annotated[str | None, typer.Option(help="actor, critic, or another side of the dump.", show_default=False)]
Stage = Annotated[str | None, typer.Option(help="early, mid, late, separated by commas.", show_default=False)]
Snapshot = Annotated[str | None, typer.Option(help="Snapshots from 0, as 0,3,-1 or 2:5.", show_default=False)]
Steps = Annotated[
    str | None,
    typer.Option(help="Nearest snapshots as 500000,4500000; a range as 500000:8000000.", show_default=False),
]
Tasks = Annotated[str | None, typer.Option(help="Only these, separated by commas.", show_default=False)]
Layer = Annotated[
    str | None,
    typer.Option(help="Only the gradient of a parameter ('0.weight') or layer ('0').", show_default=False),
]
Scheduler = Annotated[
    str, typer.Option(help="serial, threads:N, processes:N, tcp://host:port of dask, or its scheduler file.")
]
Formats = Annotated[str, typer.Option("--format", help="Figure formats, separated by commas: pdf, png, svg.")]
OUT = Path("figures/out")


def _common(
    side: Side = None,
    stage: Stage = None,
    snapshot: Snapshot = None,
    steps: Steps = None,
    tasks: Tasks = None,
    layer: Layer = None,
    scheduler: Scheduler = "serial",
    out: Out = OUT,
    formats: Formats = "pdf,png",
    as_json: AsJson = False,
) -> None:
    """The options of every figure command, for `_register` to read."""


def _register(make: Callable[..., Product]) -> None:
    """Make a command of a function that takes a `Request` and options of its own."""

    def command(dumps: list[str], **options: Any) -> None:
        own = {name: options.pop(name) for name in own_names}
        out, formats, as_json = options.pop("out"), options.pop("formats"), options.pop("as_json")
        scheduler, side, layer = options.pop("scheduler"), options.pop("side"), options.pop("layer")
        chosen = {name: as_texts(value) for name, value in options.items()}
        request = Request(tuple(dumps), side=side, layer=layer, scheduler=scheduler, **chosen)
        _finish(lambda: _of_dumps(make, request, own), out, as_texts(formats), as_json)

    own_names = _add(make, command, "dumps", Dumps, _common)


def _of_dumps(make: Callable[..., Product], request: Request, own: dict[str, Any]) -> Product:
    from toppo_diag.schedulers import check_scheduler

    check_scheduler(request.scheduler)
    product = make(request, **own)
    if request.layer is None:
        return product
    # beside the figure of the whole side, not in its place
    return dataclasses.replace(product, name=f"{product.name}-{request.layer.replace('/', '_')}")


def _common_of_tables(out: Out = OUT, as_json: AsJson = False) -> None:
    """The options of every command that reads tables off runs."""


def _common_of_curves(out: Out = OUT, formats: Formats = "pdf,png", as_json: AsJson = False) -> None:
    """The options of every command that draws runs."""


def _register_of_runs(make: Callable[..., Product], common: Callable[..., None]) -> None:
    """Make a command of a function that takes the paths of runs and options of its own."""

    def command(runs: list[str], **options: Any) -> None:
        own = {name: options.pop(name) for name in own_names}
        formats = as_texts(options.get("formats", "pdf"))
        _finish(lambda: make(tuple(runs), **own), options["out"], formats, options["as_json"])

    own_names = _add(make, command, "runs", Runs, common)


def _add(
    make: Callable[..., Product], command: Callable[..., None], name: str, kind: Any, common: Callable[..., None]
) -> list[str]:
    """Add a command to the app: an argument, what `make` takes beside it, the common options. The names of what `make`
    takes.
    """
    own_parameters = _typed(make)[1:]
    first = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    parameters = [first, *own_parameters, *_typed(common)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(make.__name__, help=inspect.getdoc(make))(command)
    return [p.name for p in own_parameters]


def _typed(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """A function's parameters as keywords, their annotations resolved."""
    names = inspect.signature(function).parameters
    hints = get_type_hints(
        function, {**vars(sys.modules[function.__module__]), "Product": Product}, include_extras=True
    )
    return [p.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY) for name, p in names.items()]


def _finish(make: Callable[[], Product], out: Path, formats: tuple[str, ...], as_json: bool) -> None:
    """Run a command, write what it made, say so; exit code 1 if it is a check that failed."""
    from toppo_diag.output import chosen_formats, require_writable, table_lines, write_product

    kinds = chosen_formats(formats)
    require_writable(out)
    product = make()
    made = [str(path) for path in write_product(product, out, kinds)]
    if as_json:
        answer = {"files": made, "numbers": product.numbers, "notes": product.notes, "failures": product.failures}
        print(json.dumps(answer))
    else:
        print("\n".join([*table_lines(product.numbers), *(f"note: {note}" for note in product.notes), *made]))
    for failure in product.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if product.failures:
        raise typer.Exit(1)


@app.command()
def info(dump: str, as_json: AsJson = False) -> None:
    """What a dump holds: run, tasks, snapshots and their steps, sizes, configuration."""
    from toppo.dump import describe, open_dump

    facts = describe(open_dump(dump))
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


@app.command()
def verify(dump: str, as_json: AsJson = False) -> None:
    """Check a dump against itself: schema, checksums, holes, Grams recomputed from slabs. Exit code 1 if damaged."""
    from toppo.dump import verify as check

    report = check(dump)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def export(
    dump: str,
    archive: Annotated[Path, typer.Argument(help="The HDF5 file to make.")],
    slabs: Annotated[bool, typer.Option("--slabs", help="The gradients too; everything else always goes.")] = False,
    keepbits: Annotated[int | None, typer.Option(help="Mantissa bits of the gradients to keep, 1 to 23.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one portable HDF5 file of a dump, which every command that needs no slabs reads in its place."""
    from toppo.dump import export as write

    made = write(dump, archive, slabs=slabs, keepbits=keepbits)
    size = made.stat().st_size
    print(json.dumps({"file": str(made), "bytes": size}) if as_json else f"{made} ({size / 1e6:.1f} MB)")


for _command in COMMANDS.values():
    _register(_command)
for _command in RUN_TABLES.values():
    _register_of_runs(_command, _common_of_tables)
for _command in RUN_FIGURES.values():
    _register_of_runs(_command, _common_of_curves)


@app.command("solver-bench")
def solver_bench(out: Out = OUT, as_json: AsJson = False) -> None:
    """Table C.1 measured here: our FairGrad solver, the paper's, scipy's, the RL release's SGD, on five regimes."""
    from toppo_diag.analysis import solver_bench as bench
    from toppo_diag.output import require_writable, write_whole

    require_writable(out)
    rows = bench.solver_bench()
    made = [
        write_whole(out / "solver-bench.csv", bench.to_csv(rows).encode()),
        write_whole(out / "solver-bench.md", bench.to_markdown(rows).encode()),
    ]
    if as_json:
        print(json.dumps({"files": [str(p) for p in made], "numbers": [dataclasses.asdict(row) for row in rows]}))
    else:
        print(bench.to_markdown(rows))
        print("\n".join(map(str, made)))


@app.command()
def figures(
    manifest: Annotated[Path, typer.Argument(help="What to make from what.")] = Path("figures/paper.toml"),
    only: Annotated[
        str | None, typer.Option(help="Only these entries, separated by commas.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what is on disk; exit code 1 if it differs.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Entries made at the same time, each in a process.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="Directory for what is made (default: the manifest's).")] = None,
    formats: Formats = "pdf,png",
    as_json: AsJson = False,
) -> None:
    """All figures and tables of a manifest, and a page that says what was made from what."""
    from toppo_diag.batch import check_all, make_all
    from toppo_diag.manifest import read_manifest
    from toppo_diag.output import chosen_formats, table_lines

    plan = read_manifest(manifest, out).only(as_texts(only))
    kinds = chosen_formats(as_texts(formats))
    results = check_all(plan, jobs) if check else make_all(plan, kinds, jobs)
    if as_json:
        print(json.dumps([result.summary() for result in results]))
    else:
        print("\n".join(table_lines([{k: _shown(v) for k, v in result.summary().items()} for result in results])))
        if not check:
            print(plan.out / "index.html")
    for result in results:
        for failure in result.failures:
            print(f"failed: {result.name}: {failure}", file=sys.stderr)
    if any(result.failures for result in results):
        raise typer.Exit(1)


@app.command()
def watch(
    dump: Annotated[str, typer.Argument(help="A run directory or dump that is being written.")],
    interval: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """A live view of a run in progress: how far it is, and each task's success, gradient norms and share of the step.
    Ends when the run does.
    """
    from toppo_diag.watch import follow, look

    if as_json:
        print(json.dumps(look(dump).summary()))
    else:
        follow(dump, interval, once)

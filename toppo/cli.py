"""The command line `toppo`: it parses options, calls the functions of `import toppo`, and prints the results."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import toppo
from toppo.common import terminal
from toppo.common.terminal import printable, with_flags
from toppo.training.config import FIELDS, PRESETS, TYPES
from toppo.training.envs.sizes import N_GOALS

if TYPE_CHECKING:
    from toppo.training.run.directory import Run

app = terminal.App("Train a multi-task agent on Meta-World and record the gradient of every task.")


class _CommandLine(Console):
    """A console on which the library's options in backticks appear as flags."""

    def print(self, *objects: Any, **style: Any) -> None:
        known = terminal.flags(app)
        super().print(*(with_flags(o, known) if isinstance(o, str) else o for o in objects), **style)


out, err = _CommandLine(), _CommandLine(stderr=True)


def main() -> None:
    """Run the command line; the exit code says how it ended."""
    terminal.run(app)


@app.callback()
def options_of_all(version: Annotated[bool, terminal.version_option("toppo")] = False) -> None:
    """Train a multi-task agent on Meta-World and record the gradient of every task."""


def _with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per field of `TrainConfig`, so that options are defined in one place."""
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    parameters = [p.replace(annotation=hints[p.name]) for p in own if p.kind is not p.VAR_KEYWORD]
    flags = {name: "--" + name.replace("_", "-") for name in FIELDS}
    for name, field in FIELDS.items():
        kind = {tuple[int, ...]: str, int | None: int}.get(TYPES[name], TYPES[name])
        choices = field.metadata["choices"]
        default = field.metadata["stands_for"] or _shown_default(field.default)
        option = typer.Option(
            help=f"{with_flags(field.metadata['help'], flags)} (default: {default})",
            rich_help_panel=field.metadata["panel"],
            show_default=False,
            metavar="|".join(choices) if choices else None,
        )
        annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def _shown_default(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


RunArgument = Annotated[Path, typer.Argument(help="Directory of a run, such as dumps/run1.")]
Device = Annotated[
    str | None, typer.Option(help="Compute on another device than the run started on; its rounding then differs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
@_with_config_options
def train(
    *,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of options. Options on the command line win over it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Variant of the method, from plain multi-task PPO to TOPPO: {', '.join(PRESETS)} (default: toppo)."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Directory for the run, under dumps/ (default: the next free runN).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan of the run and what it would cost; train nothing.")
    ] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Train a new run into dumps/NAME.

    The defaults are those of TOPPO on MT10 in the paper. A run that stops can be resumed.
    """
    if dry_run:
        print(toppo.estimate(config, name=name, preset=preset, **options))
        return
    _print_run(toppo.train(config, name=name, preset=preset, progress=_console(as_json), **options), as_json)


@app.command()
def resume(run: RunArgument, device: Device = None, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped.

    The result is the same, bit for bit, as that of a run that never stopped.
    """
    _print_run(toppo.resume(run, device=device, progress=_console(as_json)), as_json)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file of rungs, benchmarks and seeds, as in figures/sweeps/.")],
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time on this machine; they share its cores (default: 1).", min=1)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address (tcp://host:port) or scheduler file of a dask cluster whose machines all see this directory. "
            "Each thread of its workers trains one run."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with their time and disk space; train nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train every rung of a sweep on every benchmark with every seed.

    A rung is one variant of the method. Finished runs are skipped, and runs that were cut off go on. The exit code is 1
    if a run failed.
    """
    from toppo.training.sweep.display import outcome_table, plan_table
    from toppo.training.sweep.start import plan_sweep

    if dry_run:
        plan = plan_sweep(file, jobs=jobs)
        costs = plan.costs()
        if as_json:
            print(json.dumps([{**run.as_dict(), **plan.state_and_cost(run, costs)} for run in plan.runs]))
        else:
            out.print(plan_table(plan.runs, plan.states, costs, f"{file}: {len(plan.runs)} runs"))
            out.print(plan.total(costs), highlight=False, soft_wrap=True)
        return
    result = toppo.sweep(file, jobs=jobs, scheduler=scheduler, progress=_console(as_json))
    if as_json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in result]))
    else:
        out.print(outcome_table(result.outcomes, str(file)))
    result.require_finished()


@app.command()
def evaluate(
    run: RunArgument,
    episodes: Annotated[
        int, typer.Option(help=f"Episodes per task, each with another goal; at most {N_GOALS}, the paper's number.")
    ] = N_GOALS,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the newest checkpoint of a run as the paper does.

    Every goal of every task is played once, with the mean action.
    """
    table = toppo.evaluate(run, episodes=episodes, device=device, progress=err)
    if as_json:
        print(json.dumps({**table.attrs, "tasks": table.to_dict("index")}))
        return
    title = f"{run} at {table.attrs['env_steps']:,} steps: mean success {table.attrs['mean_success']:.3f}"
    rows = [(str(task), f"{success:.2f}", f"{returned:.1f}") for task, success, returned in table.itertuples()]
    _print_table(title, ("task", "success", "return"), rows)


@app.command()
def params(as_json: AsJson = False) -> None:
    """Count the parameters of the paper's networks.

    These are this project's rows of Table B.2. The optimizer's state is not counted.
    """
    counts = toppo.parameter_counts()
    if as_json:
        print(counts.reset_index().to_json(orient="records"))
        return
    rows = [(str(method), *(f"{n:,} ({n / 1000:.0f}K)" for n in own)) for method, *own in counts.itertuples()]
    _print_table("Table B.2, our rows", ("method", *counts.columns), rows)


def _console(as_json: bool) -> Console:
    """The console for the progress: stderr if JSON is printed, because stdout then holds the JSON alone."""
    return err if as_json else out


def _print_run(run: Run, as_json: bool) -> None:
    collects, success = run.collects, run.mean_success
    if as_json:
        print(json.dumps({"run": str(run.path), "collects": collects, "mean_success": success}))
    else:
        line = f"{run.path}: {collects} collects, mean success {success:.3f}"
        out.print(printable(line), highlight=False, markup=False)


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=Text(printable(title)))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table)

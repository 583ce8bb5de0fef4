"""`toppo train | resume | sweep | evaluate | params`: options in, runs or a table out. Torch is imported by the
commands that need it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.table import Table

from toppo.common.errors import ToppoError, UsageError
from toppo.training.errors import Interrupted
from toppo.training.run.start import open_run, require_training, train_to_end

if TYPE_CHECKING:
    from toppo.training.config import TrainConfig
    from toppo.training.learner.update import Learner
    from toppo.training.run.directory import RunDirectory

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Multi-task PPO with critic balancing on Meta-World, with gradient dumps.",
)
err = Console(stderr=True)


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
    elif isinstance(error, ToppoError):
        message, code = str(error), error.exit_code
    elif isinstance(error, (DumpError, OSError)):
        message, code = str(error), 1
    else:
        raise error
    err.print(f"error: {message}", highlight=False, markup=False, soft_wrap=True)
    return code


def _with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per `TrainConfig` field, so that the configuration is defined in one place."""
    from toppo.training.config import FIELDS, TYPES

    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    parameters = [p.replace(annotation=hints[p.name]) for p in own if p.kind is not p.VAR_KEYWORD]
    for name, field in FIELDS.items():
        kind = {tuple[int, ...]: str, int | None: int}.get(TYPES[name], TYPES[name])
        choices = field.metadata["choices"]
        default = field.metadata["stands_for"] or _shown_default(field.default)
        option = typer.Option(
            help=f"{field.metadata['help']} (default: {default})",
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


def _options(given: dict[str, Any]) -> dict[str, Any]:
    hidden = given.get("hidden")
    if hidden is not None:
        try:
            given["hidden"] = tuple(int(width) for width in hidden.split(","))
        except ValueError:
            raise UsageError(f"--hidden {hidden}: give widths separated by commas, such as 400,400,400") from None
    return given


@app.command()
@_with_config_options
def train(
    *,
    config: Annotated[Path | None, typer.Option(help="TOML file of options; options given here win.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Rung of the paper's ladder: vanilla, ln, ln-popart, ln-fg, ln-popart-fg or toppo."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Directory under dumps/ (default: the next free runN).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
    **options: Any,
) -> None:
    """Train a run into dumps/<name>."""
    from toppo.training.config import resolve

    resolved = resolve(_options(options), preset=preset, file=config)
    require_training()
    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer
    from toppo.training.run.directory import ROOT, RunDirectory
    from toppo.training.run.schedule import plan

    resolved = dataclasses.replace(resolved, device=str(trainer.select_device(resolved.device)))
    schedule = plan(resolved)
    tasks = task_names(resolved.benchmark)
    trainer.require_backend(resolved)
    learner = trainer.build_learner(resolved, tasks)
    needed = trainer.planned_dump_bytes(schedule, learner)
    if dry_run:
        from toppo.training.run.estimate import describe_plan

        describe_plan(schedule, learner, needed, Console())
        return
    trainer.require_disk(ROOT, needed)
    run = RunDirectory.create(name, resolved)
    _go(run, resolved, learner, as_json)


Device = Annotated[
    str | None, typer.Option(help="Go on on another device than the run began on; rounding then differs.")
]


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="A run's directory, such as dumps/run1.")],
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Go on with a run where it stopped."""
    directory, config, learner = open_run(run, device)
    _go(directory, config, learner, as_json)


def _go(run: RunDirectory, config: TrainConfig, learner: Learner, as_json: bool) -> None:
    """Train to the end, and say what was made."""
    console = err if as_json else Console()
    made = train_to_end(run, config, learner, console)
    if as_json:
        print(json.dumps(made))
    else:
        console.print(
            f"{run.path}: {made['collects']} collects, mean success {made['mean_success']:.3f}", highlight=False
        )


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file of rungs, benchmarks and seeds; see figures/sweeps/.")],
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time on this machine, which share its cores (default: 1).", min=1)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="tcp://host:port of a dask scheduler, or its scheduler file: one run a thread of its workers, which "
            "must see this directory."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what ran as JSON.")] = False,
) -> None:
    """Train every rung of a sweep on every benchmark with every seed: what is finished is skipped, what was cut off
    goes on. Exit code 1 if a run failed.
    """
    from toppo.training.sweep.display import SweepDisplay, outcome_table, plan_table
    from toppo.training.sweep.jobs import Outcome, cores_of_a_job, run_all, skipped
    from toppo.training.sweep.plan import State, expand, read_sweep, states

    if jobs is not None and scheduler is not None:
        raise UsageError("--jobs and --scheduler both say where runs go; give one of them")
    runs = expand(read_sweep(file), cores_of_a_job(jobs or 1))
    require_training()
    from toppo.training.envs.metaworld import task_names

    for benchmark in dict.fromkeys(run.config.benchmark for run in runs):
        task_names(benchmark)
    found = states(runs, Path.cwd())
    if dry_run and as_json:
        plans = [
            {"run": str(r.path), "rung": r.rung, "state": found[r.name].value, "config": r.config.to_dict()}
            for r in runs
        ]
        print(json.dumps(plans))
        return
    if dry_run:
        Console().print(plan_table(runs, found, f"{file}: {len(runs)} runs"))
        return
    outcomes: dict[str, Outcome] = {str(r.path): skipped(r) for r in runs if found[r.name] is State.FINISHED}
    left = [run for run in runs if str(run.path) not in outcomes]
    console = err if as_json else Console()
    with SweepDisplay(left, console) as display:

        def done(outcome: Outcome) -> None:
            outcomes[outcome.run] = outcome
            display.done(outcome)

        signal_number = run_all(left, jobs or 1, scheduler, done, display.tick)
    in_order = [outcomes[str(run.path)] for run in runs]
    if as_json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in in_order]))
    else:
        console.print(outcome_table(in_order, str(file)))
    if signal_number is not None:
        raise Interrupted(
            f"stopped by {signal.Signals(signal_number).name}; go on with the same command", signal_number
        )
    failed = [o for o in in_order if o.status == "failed"]
    if failed:
        raise ToppoError(
            f"{len(failed)} of {len(runs)} runs failed, first {failed[0].run} ({failed[0].note}); "
            "the same command goes on with them"
        )


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's directory, such as dumps/run1.")],
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the paper's evaluation of a run's newest checkpoint: every goal of every task once, mean action."""
    directory, config, learner = open_run(run, device)
    from toppo.training.run import checkpoint as checkpoints
    from toppo.training.run import trainer
    from toppo.training.run.progress import Display
    from toppo.training.run.schedule import plan

    stored = checkpoints.load_latest(directory.checkpoints, lambda line: err.print(line, highlight=False, markup=False))
    if stored is None:
        raise ToppoError(f"{run} has no checkpoint yet; train it with `toppo resume {run}`")
    directory.same_config(config, stored.config)
    checkpoints.restore_learner(learner, stored.arrays)
    backend = trainer.build_backend(dataclasses.replace(config, backend="metaworld"), plan(config))
    for notice in backend.notices:
        err.print(notice, highlight=False, markup=False)
    try:
        with Display(str(run), plan(config), err) as display:
            outcome = trainer.evaluate(learner, backend, config, display, lambda: None)
    finally:
        backend.close()
    line = trainer.evaluation_line(
        outcome, learner.tasks, stored.collect, stored.collect * config.env_steps_per_collect
    )
    if as_json:
        print(json.dumps(line))
        return
    table = Table(title=f"{run} at {line['env_steps']:,} steps: mean success {line['mean_success']:.3f}")
    for column in ("task", "success", "return"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, numbers in line["tasks"].items():
        table.add_row(task, f"{numbers['success']:.2f}", f"{numbers['return']:.1f}")
    Console().print(table)


@app.command()
def params(as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False) -> None:
    """Print Table B.2's own rows: parameters of the real networks, optimizer state excluded."""
    require_training()
    from toppo.training.config import resolve
    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer

    rows: list[tuple[str, dict[str, int]]] = []
    for label, preset in (("TOPPO", "toppo"), ("Vanilla MT-PPO", "vanilla")):
        counts = {}
        for benchmark in ("MT10", "MT50"):
            config = dataclasses.replace(resolve({"benchmark": benchmark}, preset=preset), device="cpu")
            counts[benchmark] = trainer.build_learner(config, task_names(benchmark)).n_parameters
        rows.append((label, counts))
    if as_json:
        print(json.dumps([{"method": label, **counts} for label, counts in rows]))
        return
    table = Table(title="Table B.2, our rows")
    for column in ("method", "MT10", "MT50"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for label, counts in rows:
        table.add_row(label, *(f"{n:,} ({n / 1000:.0f}K)" for n in counts.values()))
    Console().print(table)

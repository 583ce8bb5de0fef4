"""`toppo-diag`: what a gradient dump shows. Every command does one thing, prints what it made, and has --json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from toppo.dump import Dump

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What a gradient dump shows: Gram heatmaps and the numbers behind them, offline, without torch.",
)


class UsageError(Exception):
    """A wrong option: one line, exit code 2."""


def main() -> None:
    """Entry point: every error a user can cause ends in one line on stderr and a non-zero exit."""
    try:
        app(standalone_mode=False)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    from toppo.dump import DumpError
    from toppo_diag.output import OutputError

    if hasattr(error, "format_message"):  # what typer raises of itself
        print(f"error: {error.format_message()}", file=sys.stderr)
        return 2
    if isinstance(error, (UsageError, OutputError, DumpError, ValueError, OSError)):
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    raise error


Dumps = Annotated[list[str], typer.Argument(help="Runs, dumps (.zarr), archives (.h5) or URLs.", metavar="DUMP...")]
Out = Annotated[Path, typer.Option(help="Directory for figures and tables.")]
Formats = Annotated[str, typer.Option("--format", help="Figure formats, separated by commas: pdf, png, svg.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")]
Stages = Annotated[str, typer.Option("--stage", help="Stages, separated by commas: early, mid, late.")]
Side = Annotated[str, typer.Option(help="actor, critic, or another side of the dump.")]


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
    import dataclasses

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


@app.command("solver-bench")
def solver_bench(out: Out = Path("figures/out"), as_json: AsJson = False) -> None:
    """Table C.1 measured here: our FairGrad solver, the paper's, scipy's, the RL release's SGD, on five regimes."""
    import dataclasses

    from toppo_diag.analysis import solver_bench as bench
    from toppo_diag.output import write_whole

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
def heatmaps(
    dumps: Dumps,
    side: Side = "critic",
    stage: Stages = "early,mid,late",
    out: Out = Path("figures/out"),
    formats: Formats = "pdf,png",
    as_json: AsJson = False,
) -> None:
    """Gram heatmaps (Figures 3, D.1; --side actor: D.2): cosines, log10 G_ii, ||g_i||/K, spread; first dumped
    minibatch of each stage.
    """
    from toppo.dump import open_dump
    from toppo_diag.analysis.heatmap import gram_panel
    from toppo_diag.analysis.stages import stage_snapshots
    from toppo_diag.conditions import critic_conditions, plain_conditions
    from toppo_diag.output import write_csv, write_figure
    from toppo_diag.plots.heatmap import heatmap_figure
    from toppo_diag.plots.style import paper_style

    opened = [open_dump(d) for d in dumps]
    _same_tasks(opened)
    for dump in opened:
        dump.parameters(side)
        if not dump.n_snapshots:
            raise ValueError(
                f"{dump.path}: holds no snapshot yet; wait for the run's first one, or train with --dump-every"
            )
    conditions = critic_conditions(opened) if side == "critic" else plain_conditions(opened)
    panels, numbers, rows = {}, [], []
    for condition in conditions:
        steps = condition.dump.env_steps
        for name, snapshot in stage_snapshots(steps, stage.split(",")).items():
            panel = gram_panel(condition.gram(side, snapshot, 0), condition.dump.tasks)
            panels[name, condition.label] = panel
            where = {"stage": name, "condition": condition.label, "env_steps": int(steps[snapshot])}
            numbers.append({**where, "spread": panel.spread, "mean_abs_cosine": panel.mean_abs_cosine})
            rows += [
                {**where, "task": a, "task_j": b, "cosine": panel.cosine[i, j], "log10_G_ii": panel.log10_square[i]}
                for i, a in enumerate(panel.tasks)
                for j, b in enumerate(panel.tasks)
            ]
    stages = [s for s in stage.split(",") if any(s == key[0] for key in panels)]
    with paper_style():
        figure = heatmap_figure(panels, _row_labels(stages, numbers), [c.label for c in conditions], side)
    stem = out / (f"heatmaps-{side}" + ("" if len(dumps) > 1 else f"-{_slug(opened[0])}"))
    made = [*write_figure(figure, stem, _formats(formats)), write_csv(rows, stem.with_name(f"{stem.name}.csv"))]
    _finish(made, numbers, as_json)


def _row_labels(stages: list[str], numbers: list[dict[str, Any]]) -> dict[str, str]:
    """Stage to row label, with its steps where all dumps agree on them."""
    labels = {}
    for stage in stages:
        steps = {n["env_steps"] for n in numbers if n["stage"] == stage}
        labels[stage] = f"{stage}, {_million(steps.pop())}" if len(steps) == 1 else stage
    return labels


def _million(steps: int) -> str:
    return f"{steps / 1e6:.3g}M steps"


def _same_tasks(dumps: list[Dump]) -> None:
    for dump in dumps[1:]:
        if dump.tasks != dumps[0].tasks:
            raise UsageError(f"{dumps[0].path} and {dump.path} have different tasks; draw them one by one")


def _formats(text: str) -> list[str]:
    from toppo_diag.output import FORMATS

    chosen = text.split(",")
    for kind in chosen:
        if kind not in FORMATS:
            raise UsageError(f"--format {text}: give some of {', '.join(FORMATS)}, separated by commas")
    return chosen


def _slug(dump: Dump) -> str:
    from toppo_diag.conditions import run_name

    return run_name(dump)


def _finish(made: list[Path], numbers: list[dict[str, Any]], as_json: bool) -> None:
    """Print the headline numbers as a small table, and the files made."""
    if as_json:
        print(json.dumps({"files": [str(p) for p in made], "numbers": numbers}))
        return
    if numbers:
        columns = list(numbers[0])
        shown = [[f"{n[c]:.4g}" if isinstance(n[c], float) else f"{n[c]}" for c in columns] for n in numbers]
        widths = [max(len(c), *(len(row[i]) for row in shown)) for i, c in enumerate(columns)]
        for row in [columns, *shown]:
            print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    for path in made:
        print(path)

"""A live terminal view of a run in progress."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toppo.combiners.geometry import gradient_norms, mean_abs_cosine, spread
from toppo.dump import Dump, DumpError, open_dump
from toppo_diag.analysis.health import direction_shares
from toppo_diag.conditions import default_side, recorded, run_name
from toppo_diag.errors import DiagnosticError
from toppo_diag.plots.names import short


@dataclass(frozen=True)
class View:
    """What a run has recorded so far.

    Attributes:
        run: its name.
        env_steps: at the last collect that was recorded, None before the first.
        planned_steps: of the whole run, None if it did not say.
        snapshots: committed and planned (None if unknown).
        complete: whether the run has ended.
        sides: side to {"spread", "mean_abs_cosine"} of the last Gram.
        tasks: task to its success, norm on each side and share of the critic's direction, as far as they are there.
    """

    run: str
    env_steps: int | None
    planned_steps: int | None
    snapshots: tuple[int, int | None]
    complete: bool
    sides: dict[str, dict[str, float]]
    tasks: dict[str, dict[str, float]]

    def summary(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**vars(self), "snapshots": list(self.snapshots)}


def look(path: str) -> View:
    """What a run shows now.

    Raises:
        DumpError: no dump there.
    """
    dump = open_dump(path)
    tasks: dict[str, dict[str, float]] = {task: {} for task in dump.tasks}
    steps = _last_steps(dump)
    if dump.n_snapshots:
        name = next((n for n in ("success_ema", "success", "accuracy") if n in dump.names), None)
        if name is not None:
            for task, value in zip(dump.tasks, _last(dump, name), strict=True):
                tasks[task]["success"] = float(value)
    sides = {}
    for side in dump.sides:
        gram = _last_gram(dump, side)
        if gram is None:
            continue
        norms = gradient_norms(gram)
        sides[side] = {"spread": float(spread(norms)), "mean_abs_cosine": float(mean_abs_cosine(gram))}
        for task, norm in zip(dump.tasks, norms, strict=True):
            tasks[task][f"{side} norm"] = float(norm)
    side = default_side(dump)
    if dump.n_snapshots and f"{side}_weights" in dump.names:
        gram, weights = (_last(dump, f"{side}_{what}")[-1] for what in ("gram", "weights"))
        for task, share in zip(dump.tasks, direction_shares(gram, weights), strict=True):
            tasks[task][f"{side} share"] = float(share)
    planned = recorded(dump, "env_steps", None)
    return View(
        run=run_name(dump),
        env_steps=steps,
        planned_steps=None if planned is None else int(planned),
        snapshots=(dump.n_snapshots, dump.n_planned),
        complete=dump.complete,
        sides=sides,
        tasks=tasks,
    )


def _last(dump: Dump, name: str) -> np.ndarray:
    """An array at the last snapshot."""
    spec = dump.source.specs[name]
    return dump.source.read(name, (dump.n_snapshots - 1, *(slice(None),) * (len(spec.dims) - 1)))


def _last_gram(dump: Dump, side: str) -> np.ndarray | None:
    """The newest Gram, of the stream or of a snapshot."""
    if dump.n_stream:
        collect: np.ndarray = dump.source.read(f"{side}_gram_stream", (dump.n_stream - 1, *(slice(None),) * 3))
        return np.asarray(collect[-1])
    return np.asarray(_last(dump, f"{side}_gram")[-1]) if dump.n_snapshots else None


def _last_steps(dump: Dump) -> int | None:
    if dump.n_stream:
        return int(dump.values("stream_env_steps")[-1])
    return int(dump.env_steps[-1]) if dump.n_snapshots else None


def follow(path: str, interval: float, once: bool) -> None:
    """Show a run on the terminal until it ends, or Ctrl-C does.

    Args:
        path: whatever `open_dump` takes.
        interval: seconds between looks.
        once: look a single time.

    Raises:
        DumpError: no dump there.
    """
    console = Console()
    view = look(path)
    if once or view.complete or not console.is_terminal:
        console.print(panel(view))
        if not (once or view.complete):
            raise DiagnosticError("watch needs a terminal to go on; give --once, or --json")
        return
    with Live(panel(view), console=console, auto_refresh=False) as live:
        while not view.complete:
            time.sleep(interval)
            try:
                view = look(path)
            except DumpError as error:  # a commit under way, or a disk that is away for a moment
                live.update(Group(panel(view), Text(f"waiting: {error}")), refresh=True)
                continue
            live.update(panel(view), refresh=True)


def panel(view: View) -> Group:
    """The view as it stands on a terminal."""
    steps = "no collect yet" if view.env_steps is None else f"{view.env_steps:,}"
    if view.planned_steps:
        steps += f" of {view.planned_steps:,} steps ({100 * (view.env_steps or 0) / view.planned_steps:.0f}%)"
    done, planned = view.snapshots
    state = "complete" if view.complete else "running or interrupted"
    lines = [f"{view.run}: {steps}; {done} of {planned if planned is not None else '?'} snapshots; {state}"]
    lines += [
        f"{side}: spread {s['spread']:.3g}, mean |cos| {s['mean_abs_cosine']:.3f}" for side, s in view.sides.items()
    ]
    columns = list(dict.fromkeys(column for values in view.tasks.values() for column in values))
    table = Table("task", *columns)
    for task, values in view.tasks.items():
        table.add_row(short(task), *(f"{values[c]:.3g}" if c in values else "" for c in columns))
    return Group(*(Text(line) for line in lines), table)

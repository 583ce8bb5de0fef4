"""What a person sees of a sweep: a progress bar on a terminal, a line when a run ends, and a table of all runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from toppo.common.terminal import printable
from toppo.training.run.directory import Run
from toppo.training.run.progress import duration, rough
from toppo.training.sweep.jobs import Outcome
from toppo.training.sweep.plan import PlannedRun, State

if TYPE_CHECKING:
    from toppo.training.run.estimate import Estimate

Side = Literal["left", "right"]


class SweepDisplay:
    """Shows the progress of a sweep.

    Args:
        runs: the runs that will be trained.
        console: where to draw. The bar is shown if the console is a terminal.
    """

    def __init__(self, runs: Sequence[PlannedRun], console: Console) -> None:
        self._runs, self._console, self._ended = runs, console, 0
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f}%"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, refresh_per_second=1)
        self._bar.disable = not console.is_terminal
        self._task = self._bar.add_task(self._said(), total=sum(run.config.env_steps for run in runs))

    def __enter__(self) -> SweepDisplay:
        self.tick()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tick(self) -> None:
        """Update the bar, if there is one."""
        if not self._bar.disable:
            steps = sum(_collects(run) * run.config.env_steps_per_collect for run in self._runs)
            self._bar.update(self._task, completed=steps, description=self._said())

    def done(self, outcome: Outcome) -> None:
        """Print a line about a run that ended."""
        self._ended += 1
        success = "" if outcome.mean_success is None else f", mean success {outcome.mean_success:.3f}"
        note = f": {outcome.note}" if outcome.note else ""
        line = f"[{self._said()}] {outcome.run} {outcome.status}{success}, {duration(outcome.seconds)}{note}"
        self._console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def _said(self) -> str:
        return f"{self._ended} of {len(self._runs)} runs"


def _collects(run: PlannedRun) -> int:
    """Number of collects (rollout phases) that a run has finished, from the shortest of its logs."""
    log = Run(run.path).timings_log
    return log.read_bytes().count(b"\n") if log.exists() else 0


def plan_table(
    runs: Sequence[PlannedRun], found: Mapping[str, State], costs: Mapping[str, Estimate], title: str
) -> Table:
    """A table of the runs of a sweep, their states, and what each would take."""
    columns: dict[str, Side] = {"run": "left", "steps": "right", "state": "left", "time": "right", "disk": "right"}
    rows = []
    for run in runs:
        cost = costs.get(run.name)
        time = "" if cost is None else " to ".join(rough(3600 * hours) for hours in cost.hours_between)
        disk = "" if cost is None else f"{cost.disk_bytes / 1e9:.2f} GB"
        rows.append((str(run.path), f"{run.config.env_steps:,}", found[run.name].value, time, disk))
    return _table(title, columns, rows)


def outcome_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """A table of the outcome of each run."""
    columns: dict[str, Side] = {"run": "left", "status": "left", "steps": "right", "success": "right", "time": "right"}
    rows = [
        (
            o.run,
            o.status,
            f"{o.env_steps:,}",
            "" if o.mean_success is None else f"{o.mean_success:.3f}",
            duration(o.seconds),
            o.note,
        )
        for o in outcomes
    ]
    return _table(title, {**columns, "note": "left"}, rows)


def _table(title: str, columns: Mapping[str, Side], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, side in columns.items():
        table.add_column(name, justify=side, no_wrap=name != "note", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table

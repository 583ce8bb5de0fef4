"""The command `watch`: a live view of a run on the terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toppo.dump import DumpError
from toppo_diag.commands.checking import Between, checked
from toppo_diag.errors import DiagnosticError
from toppo_diag.plots.names import short
from toppo_diag.request import Source

if TYPE_CHECKING:
    from toppo_diag.reading.live import View


@checked
def watch(dump: Source, *, interval: Annotated[float, Between(0.1, 86_400)] = 5.0, once: bool = False) -> None:
    """A live view of a run in progress: how far it is, and each task's success, gradient norms and share of the step.

    Ends when the run ends.

    Args:
        dump: a run directory or dump that is being written.
        interval: seconds between looks.
        once: look once and end.
    """
    from toppo_diag.reading.live import look  # scipy: too slow for --help

    console = Console()
    view = look(dump)
    if once or view.complete or not console.is_terminal:
        console.print(panel(view))
        if not (once or view.complete):
            raise DiagnosticError("watch needs a terminal to go on; give `once`")
        return
    with Live(panel(view), console=console, auto_refresh=False) as live:
        while not view.complete:
            time.sleep(interval)
            try:
                view = look(dump)
            except DumpError as error:  # a commit is under way, or the disk is away for a moment
                live.update(Group(panel(view), Text(f"waiting: {error}")), refresh=True)
                continue
            live.update(panel(view), refresh=True)


def panel(view: View) -> Group:
    """The view as text and a table for a terminal."""
    steps = "nothing recorded yet" if view.steps is None else f"{view.steps:,}"
    if view.planned_steps:
        steps += f" of {view.planned_steps:,} steps ({100 * (view.steps or 0) / view.planned_steps:.0f}%)"
    if view.snapshots is None:
        dumped = "no gradients recorded"
    else:
        done, planned = view.snapshots
        dumped = f"{done} of {planned if planned is not None else '?'} snapshots"
    lines = [f"{view.run}: {steps}; {dumped}; {view.state}"]
    pace = []
    if view.mean_success is not None:
        pace.append(f"mean success {view.mean_success:.3f}")
    if view.steps_per_second is not None:
        pace.append(f"{view.steps_per_second:,.0f} steps/s")
    if view.seconds_left is not None:
        left = f"{_duration(view.seconds_left)} left"
        pace.append(left if view.state == "running" else f"{left} once it goes on")
    lines += [", ".join(pace)] * bool(pace)
    lines += [
        f"{side}: spread {s['spread']:.3g} ({s['spread_low']:.3g} to {s['spread_high']:.3g}), "
        f"mean |cos| {s['mean_abs_cosine']:.3f} ({s['mean_abs_cosine_low']:.3f} to {s['mean_abs_cosine_high']:.3f})"
        for side, s in view.sides.items()
    ]
    columns = list(dict.fromkeys(column for values in view.tasks.values() for column in values))
    table = Table("task", *columns)
    for task, values in view.tasks.items():
        table.add_row(short(task), *(f"{values[c]:.3g}" if c in values else "" for c in columns))
    return Group(*(Text(line) for line in lines), table) if view.tasks else Group(*(Text(line) for line in lines))


def _duration(seconds: float) -> str:
    """A time in hours and minutes, such as "3 h 05 min"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"

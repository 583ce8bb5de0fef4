"""What a person sees during a run: a live panel on a terminal, or elsewhere one plain line per collect."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toppo.common.terminal import printable
from toppo.training.run.schedule import Schedule


class Display:
    """Shows the progress of a run.

    Args:
        title: title of the panel.
        schedule: the plan of the run.
        console: where to draw; the panel is live if it is a terminal.
    """

    def __init__(self, title: str, schedule: Schedule, console: Console) -> None:
        self._title, self._schedule, self._console = printable(title), schedule, console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._start = time.perf_counter()
        self._start_steps = 0
        self._steps = 0
        self._activity = "starting"
        self._shares: dict[str, float] = {}
        self._rates: dict[str, int] = {}
        self._success = ""

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def begin(self, collect: int) -> None:
        """Note that the run starts or goes on after this collect (rollout phase with its updates)."""
        self._start, self._start_steps = time.perf_counter(), collect * self._schedule.config.env_steps_per_collect
        self._steps = self._start_steps

    def activity(self, what: str, done: int, total: int, steps: int | None = None) -> None:
        """Show what the run is doing.

        Args:
            what: one word, such as "collecting".
            done: finished part of this work.
            total: all of this work, in the same unit.
            steps: environment steps of the run so far, if they changed.
        """
        self._activity = f"{what} {100 * done / total:.0f}%"
        if steps is not None:
            self._steps = steps
        if self._live:
            self._live.update(self._panel())

    def collect_done(
        self, collect: int, lap: dict[str, float], rates: dict[str, int], mean_success: float, worst_success: float
    ) -> None:
        """Show the numbers of a finished collect.

        Args:
            collect: number of the collect.
            lap: seconds in each phase.
            rates: result of `toppo.training.run.trainer.throughput`.
            mean_success: success of its episodes, averaged over the tasks.
            worst_success: success of its episodes, averaged over the ten worst tasks.
        """
        self._steps = collect * self._schedule.config.env_steps_per_collect
        self._shares, self._rates = lap, rates
        self._success = f"success mean {mean_success:.3f}, worst-10 {worst_success:.3f}"
        if not self._live:
            self._console.print(
                f"{self._headline()} | {self._success} | {self._split()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def _rate(self) -> float:
        return (self._steps - self._start_steps) / max(time.perf_counter() - self._start, 1e-9)

    def _headline(self) -> str:
        total, rate = self._schedule.config.env_steps, self._rate()
        left = duration((total - self._steps) / rate) if rate > 0 else "?"
        return f"{self._steps:,} / {total:,} steps, {rate:,.0f} steps/s, {left} left"

    def _split(self) -> str:
        total = sum(self._shares.values()) or 1.0
        shares = ", ".join(f"{name} {100 * s / total:.0f}%" for name, s in self._shares.items() if s)
        collection, update = self._rates["collection_steps_per_s"], self._rates["update_samples_per_s"]
        return f"{shares}; collection {collection:,} steps/s, update {update:,} samples/s"

    def _panel(self) -> Table:
        table = Table(title=Text(self._title), show_header=False, title_justify="left")
        table.add_row("progress", self._headline())
        table.add_row("now", self._activity)
        if self._success:
            table.add_row("last collect", self._success)
            table.add_row("time", self._split())
        return table


def duration(seconds: float) -> str:
    """A time in hours and minutes, such as "3 h 05 min"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def rough(seconds: float) -> str:
    """A time that is not known well, in one unit, such as "50 s", "12 min", "4.5 h" or "12 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours / 24:,.0f} days" if hours >= 72 else f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"

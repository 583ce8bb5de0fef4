"""Where the wall time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("environment", "values", "update", "dump", "evaluation")


class Stopwatch:
    """Wall seconds spent in each of `PHASES`. Phases nest; time counts once, for the innermost.

    On CUDA, work is charged to the phase that waits for it.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time inside to `name` (and not to the phase around it)."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    def lap(self) -> dict[str, float]:
        """Seconds a phase since the last lap."""
        lap, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return lap

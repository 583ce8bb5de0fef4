"""Where the wall time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PHASES = ("environment", "values", "update", "dump", "evaluation")
UPDATE_PARTS = ("gradients", "grams", "combiners", "step")
"""Of a minibatch update: forward and backward into the slabs, their Grams (with the transfer from the device), the
K x K problems, direction and Adam. What is left of "update" is shuffling and bookkeeping.
"""


@dataclass(frozen=True)
class Lap:
    """Seconds in each of `PHASES`, and how those of the update divide into `UPDATE_PARTS`."""

    phases: dict[str, float]
    update_parts: dict[str, float]


class Stopwatch:
    """Wall seconds spent in each of `PHASES` and `UPDATE_PARTS`. Phases nest; time counts once, for the innermost.

    On CUDA, work is charged to the phase that waits for it.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys((*PHASES, *UPDATE_PARTS), 0.0)
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

    def lap(self) -> Lap:
        """Seconds since the last lap."""
        seconds, self._seconds = self._seconds, dict.fromkeys((*PHASES, *UPDATE_PARTS), 0.0)
        parts = {name: seconds.pop(name) for name in UPDATE_PARTS}
        seconds["update"] += sum(parts.values())
        return Lap(seconds, parts)

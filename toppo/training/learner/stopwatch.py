"""Wall time of the parts of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PHASES = ("environment", "values", "update", "dump", "evaluation")
UPDATE_PARTS = ("gradients", "grams", "combiners", "step")
"""Parts of a minibatch update.

"gradients" is the forward and backward pass. "grams" includes the transfer of the Grams from the device. "step" is the
direction and Adam. The rest of "update" is shuffling and bookkeeping.
"""


@dataclass(frozen=True)
class Lap:
    """Seconds in each of `PHASES` and in each of `UPDATE_PARTS`. The phase "update" includes the parts."""

    phases: dict[str, float]
    update_parts: dict[str, float]


class Stopwatch:
    """Measures wall seconds in each of `PHASES` and `UPDATE_PARTS`. In nested phases, time counts for the innermost.

    On CUDA, work counts for the phase that waits for it.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys((*PHASES, *UPDATE_PARTS), 0.0)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time within this context for `name`, and not for the phase around it."""
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

"""The numbers of a recorded step for a live display, the same as `toppo-diag scalars` makes of the dump later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from toppo.combiners.scalars import scalars, tag


def live_numbers(
    tasks: Sequence[str],
    grams: Mapping[str, Float[np.ndarray, "K K"]],
    recorded: Mapping[str, Any],
    present: Bool[np.ndarray, "K"],
) -> dict[str, float]:
    """Scalars by name: side/spread, ..., side/norm/task, side/share/task, and loss/task.

    Args:
        tasks: K names.
        grams: side -> G.
        recorded: what else is recorded of the step: `loss` (K,), and `{side}_weights` (K,) where weights decide it.
        present: whether each task took part.
    """
    both = present[:, None] & present[None, :]
    found = {tag("loss", task): float(recorded["loss"][i]) for i, task in enumerate(tasks) if present[i]}
    for side, gram in grams.items():
        weights = recorded.get(f"{side}_weights")
        found |= scalars(np.where(both, gram, np.nan), weights).named(side, tasks)
    return found

"""What other combiners would do with the recorded gradients: a first-order statement, and no promise about training.

Every number is a median over the same dumped minibatches, with its range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from toppo.combiners import Combiner, make, names
from toppo.combiners.geometry import gradient_norms
from toppo_diag.analysis.recorded import SideRecord
from toppo_diag.analysis.replay import Replay, replay
from toppo_diag.analysis.scale import scaled, without_popart
from toppo_diag.analysis.series import spread_evenly
from toppo_diag.analysis.spells import LEAST_MINIBATCHES
from toppo_diag.analysis.typical import Typical, typical

MOST_GRAMS = 20
"""Minibatches that are combined again, spread evenly over the run. More would take longer and say the same."""
MANY_TASKS = 100
"""Tasks above which fewer minibatches are combined again, down to `LEAST_MINIBATCHES`."""


ROUNDING = 1e-9
"""A cosine with the step that is closer to 0 counts as 0."""


@dataclass(frozen=True)
class Option:
    """What one combiner would do with the same gradients.

    Attributes:
        combiner: its spec.
        popart: whether the gradients have PopArt's rescaling, or have it taken back; None where there is no PopArt.
        used: whether training used it, as recorded.
        worst_progress: min_i <g_i, d> / ||d|| over the live tasks: the first-order decrease of the worst task's loss
            for each unit of length of the step. Comparable only among options with the same gradients.
        worst_cosine: min_i cos(g_i, d) over the live tasks. Comparable among all options.
        spread: largest over smallest contribution ||w_i g_i||.
        opposed: live tasks with <g_i, d> < 0 beyond rounding, whose loss rises to first order.
        minibatches: Grams behind the medians.
    """

    combiner: str
    popart: bool | None
    used: bool
    worst_progress: Typical
    worst_cosine: Typical
    spread: Typical
    opposed: Typical
    minibatches: int

    def columns(self) -> dict[str, Any]:
        """The columns of a table: each median, then its range as `_low` and `_high`."""
        return {
            "combiner": self.combiner,
            "popart": self.popart,
            "used": self.used,
            **self.worst_progress.columns("worst_progress"),
            **self.worst_cosine.columns("worst_cosine"),
            **self.spread.columns("spread"),
            **self.opposed.columns("opposed"),
            "minibatches": self.minibatches,
        }


def what_if(record: SideRecord, done: Callable[[int, int], object] | None = None) -> tuple[list[Option], list[str]]:
    """Every combiner that needs Grams alone, on the dumped minibatches of a side; the kindest to the worst task first.

    Before the first snapshot, these are minibatches of the Gram stream.

    Args:
        record: what the run recorded of a side.
        done: called with the number of combiners that are done, and of all.

    Returns:
        The options, and notes on combiners that are left out.
    """
    streamed = not len(record.at)
    source, present = (scaled(record.gram, record.scale), record.present) if streamed else (record.dumped, record.there)
    if not len(source):
        return [], ["No gradient is finite, so there is nothing to combine again"]
    chosen = spread_evenly(len(source), most_grams(source.shape[-1]))
    known = present[chosen]
    grams: dict[bool | None, Float[np.ndarray, "N K K"]] = {None: source[chosen]}
    if record.sigma is not None:
        grams = {True: source[chosen], False: without_popart(source[chosen], record.sigma[chosen])}
    candidates, notes = _candidates(record.spec)
    found: list[Option] = []
    for n, (spec, combiner) in enumerate(candidates.items()):
        if done is not None:
            done(n, len(candidates))
        for popart, gram in grams.items():
            try:
                replayed = replay(combiner, gram, known=known)
            except ValueError as error:
                notes.append(f"{spec} is left out: {error}")
                break
            used = spec == record.spec and popart is not False
            found.append(_summary(spec, popart, used, gram, replayed))
    return sorted(found, key=lambda option: -np.nan_to_num(option.worst_cosine.median, nan=-2)), notes


def most_grams(n_tasks: int) -> int:
    """`MOST_GRAMS`, and fewer with more than `MANY_TASKS` tasks, because the work grows with their third power."""
    return int(np.clip(MOST_GRAMS * (MANY_TASKS / n_tasks) ** 3, LEAST_MINIBATCHES, MOST_GRAMS))


def _candidates(used: str | None) -> tuple[dict[str, Combiner], list[str]]:
    """The combiners that answer from a Gram alone, by spec: at their defaults, and the one of training."""
    found: dict[str, Combiner] = {}
    left_out = []
    for spec in names(torch_free=True):
        combiner = make(spec)
        if combiner.needs_losses or combiner.state_names:
            left_out.append(spec)
        else:
            found[combiner.spec if combiner.spec == used else spec] = combiner
    notes = [f"{', '.join(left_out)}: left out, because they need losses or a memory of the minibatches between"]
    if used is not None and used not in found:
        try:
            combiner = make(used)
            if not (combiner.needs_losses or combiner.state_names or combiner.needs_torch):
                found[used] = combiner
        except ValueError:
            notes.append(f"{used}: left out, because this toppo has no such combiner")
    return found, notes * bool(left_out)


def _summary(spec: str, popart: bool | None, used: bool, gram: Float[np.ndarray, "N K K"], found: Replay) -> Option:
    live = gradient_norms(gram) > 0
    unit = np.divide(found.worst_progress, found.norm, out=np.zeros_like(found.norm), where=found.norm > 0)
    return Option(
        combiner=spec,
        popart=popart,
        used=used,
        worst_progress=typical(np.where(live.any(axis=1), unit, np.nan)),
        worst_cosine=typical(found.worst_cosine),
        spread=typical(found.spread),
        opposed=typical(((found.cosine < -ROUNDING) & live).sum(axis=1).astype(np.float64)),
        minibatches=len(gram),
    )

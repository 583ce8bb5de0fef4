"""The present state of a run: how far it is, and the newest numbers of each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toppo.combiners.geometry import gradient_norms, mean_abs_cosine, spread
from toppo.dump import Dump
from toppo_diag.analysis.health import direction_shares
from toppo_diag.reading.conditions import default_side, recorded, run_name
from toppo_diag.request import Source, opened


@dataclass(frozen=True)
class View:
    """What a run has recorded so far.

    Attributes:
        run: the run's name.
        env_steps: environment steps at the last recorded collect (rollout phase); None before the first.
        planned_steps: environment steps of the whole run; None if they were not recorded.
        snapshots: number of committed and of planned snapshots (None if unknown).
        complete: whether the run has ended.
        sides: {"spread", "mean_abs_cosine"} of the last Gram, by side.
        tasks: success, norm on each side and share of the critic's direction, by task; only what was recorded.
    """

    run: str
    env_steps: int | None
    planned_steps: int | None
    snapshots: tuple[int, int | None]
    complete: bool
    sides: dict[str, dict[str, float]]
    tasks: dict[str, dict[str, float]]

    def summary(self) -> dict[str, Any]:
        """The view as values that JSON can hold."""
        return {**vars(self), "snapshots": list(self.snapshots)}


def look(source: Source) -> View:
    """A view of what a run has recorded so far.

    Raises:
        DumpError: no dump there.
    """
    dump = opened(source)
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
    """The newest Gram: of the Gram stream, or, without one, of the last snapshot."""
    if dump.n_stream:
        collect: np.ndarray = dump.source.read(f"{side}_gram_stream", (dump.n_stream - 1, *(slice(None),) * 3))
        return np.asarray(collect[-1])
    return np.asarray(_last(dump, f"{side}_gram")[-1]) if dump.n_snapshots else None


def _last_steps(dump: Dump) -> int | None:
    if dump.n_stream:
        return int(dump.values("stream_env_steps")[-1])
    return int(dump.env_steps[-1]) if dump.n_snapshots else None

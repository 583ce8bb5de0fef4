"""The command `trap`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo_diag.errors import require_at_least
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources

SUCCESS = ("success_ema", "success", "accuracy")
"""Names under which a run may have recorded the success of each task. The first one that exists is used."""


def trap(
    dumps: Sources, *, starved_snapshots: int = 3, starved_share: float = 0.1, **selection: Unpack[Selection]
) -> Product:
    """The self-reinforcing tail trap: tasks that do not succeed and get almost no share of the step (Section 3).

    Draws each task's share of the critic's combined direction beside its success, and flags the tasks that are starved
    for some snapshots in a row. The figure is not in the paper.

    Args:
        starved_snapshots: a task is flagged after this many starved snapshots in a row.
        starved_share: a task is starved below this fraction of the even share 1/K.
    """
    from toppo_diag.analysis.trap import trap as measure
    from toppo_diag.plots.trap import trap_figure
    from toppo_diag.reading.conditions import default_side, run_name, training_weights
    from toppo_diag.reading.dumps import dropped_note, read_grams

    require_at_least(1, starved_snapshots=starved_snapshots)
    require_at_least(0, starved_share=starved_share)
    request = Request.of(dumps, **selection)
    dump = request.open_one("trap")
    side = request.side or default_side(dump)
    grams = read_grams(dump, side, request)
    notes = dropped_note(dump, side, grams)
    weights = training_weights(dump, side, grams)
    if weights is None:
        notes.append(f"{dump.path}: no {side}_weights were recorded, so the weights of a mean are used")
    success = next((grams.beside[name] for name in SUCCESS if name in grams.beside), None)
    if success is None:
        notes.append(f"{dump.path}: no success was recorded, so only the shares are drawn")
    threshold = starved_share / len(grams.tasks)
    found = measure(grams.env_steps, grams.values, weights, success, threshold)
    starved = [task for task, n in zip(grams.tasks, found.starved_for, strict=True) if n >= starved_snapshots]

    def success_at(t: int, k: int) -> float:
        return float("nan") if found.success is None else float(found.success[t, k])

    rows: list[dict[str, Any]] = [
        {"env_steps": int(s), "task": task, "share": found.shares[t, k], "success": success_at(t, k)}
        for t, s in enumerate(found.env_steps)
        for k, task in enumerate(grams.tasks)
    ]
    headline: list[dict[str, Any]] = [
        {
            "task": task,
            "share": float(found.median_shares[k]),
            "starved_for": int(found.starved_for[k]),
            "success": success_at(-1, k),
            "flag": "starved" if task in starved else "",
        }
        for k, task in enumerate(grams.tasks)
    ]
    return Product(
        name=request.stem("trap", side, run_name(dump)),
        draw=lambda: trap_figure(found.env_steps, found.shares, found.success, starved, threshold, grams.tasks, side),
        rows={"": rows},
        headline=headline,
        notes=notes,
    )

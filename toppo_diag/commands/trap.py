"""`toppo-diag trap`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toppo_diag.request import Product, Request

Snapshots = Annotated[int, typer.Option(help="Successive starved snapshots that flag a task.", min=1)]
Share = Annotated[float, typer.Option(help="A task is starved below this fraction of the fair share 1/K.", min=0.0)]


def trap(request: Request, *, starved_snapshots: Snapshots = 3, starved_share: Share = 0.1) -> Product:
    """The self-reinforcing tail trap of Section 3 (beyond the paper): per task, its share of the critic's combined
    direction against its success over time; flags the tasks starved for some snapshots.
    """
    import numpy as np

    from toppo.combiners import make
    from toppo.dump import open_dump
    from toppo_diag.analysis.health import direction_shares
    from toppo_diag.analysis.series import Steps
    from toppo_diag.analysis.trap import starved_for
    from toppo_diag.conditions import default_side, run_name, training_weights
    from toppo_diag.plots.trap import trap_figure
    from toppo_diag.reading import dropped_note, read_grams

    dump = open_dump(request.one_dump("trap"))
    side = request.side or default_side(dump)
    grams = read_grams(dump, side, request)
    notes = dropped_note(dump, side, grams)
    weights = training_weights(dump, side, grams)
    if weights is None:
        notes.append(f"{dump.path}: no {side}_weights were recorded; the mean's are used")
        weights = make("mean").solve_many(grams.values).weights
    steps = Steps.of(grams.env_steps)
    shares = steps.mean(direction_shares(grams.values, weights))
    name = next((n for n in ("success_ema", "success", "accuracy") if n in grams.beside), None)
    success = None if name is None else steps.mean(grams.beside[name])
    if success is None:
        notes.append(f"{dump.path}: no success was recorded; shares alone are drawn")
    threshold = starved_share / len(grams.tasks)
    runs = starved_for(shares, threshold)
    starved = [task for task, n in zip(grams.tasks, runs, strict=True) if n >= starved_snapshots]
    rows: list[dict[str, Any]] = [
        {
            "env_steps": int(s),
            "task": task,
            "share": shares[t, k],
            "success": float("nan") if success is None else success[t, k],
        }
        for t, s in enumerate(steps.env_steps)
        for k, task in enumerate(grams.tasks)
    ]
    numbers: list[dict[str, Any]] = [
        {
            "task": task,
            "share": float(np.median(shares[:, k])),
            "starved_for": int(runs[k]),
            "success": float("nan") if success is None else float(success[-1, k]),
            "flag": "starved" if task in starved else "",
        }
        for k, task in enumerate(grams.tasks)
    ]
    return Product(
        name=f"trap-{side}-{run_name(dump)}",
        figure=lambda: trap_figure(steps.env_steps, shares, success, starved, threshold, grams.tasks, side),
        tables={"": rows},
        numbers=numbers,
        notes=notes,
    )

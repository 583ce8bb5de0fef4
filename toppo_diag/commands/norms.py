"""`toppo-diag norms`."""

from __future__ import annotations

from typing import Any

from toppo_diag.request import Product, Request


def norms(request: Request) -> Product:
    """Per-task gradient norms against environment steps (Figure 2), the mean aggregator's and FairGrad's overlaid, a
    panel a side; spreads max/min. Uses the Gram stream where the dump has one.
    """
    from toppo.dump import open_dump
    from toppo_diag.analysis.norms import norm_series
    from toppo_diag.conditions import run_name, sides
    from toppo_diag.plots.norms import norms_figure
    from toppo_diag.reading import dropped_note, read_stream

    dump = open_dump(request.one_dump("norms"))
    notes, series = [], {}
    tasks: tuple[str, ...] = ()
    per_task: list[dict[str, Any]] = []
    aggregates: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    if not dump.n_stream:
        notes.append(f"{dump.path}: has no Gram stream; drawn from its dumped snapshots")
    # Figure 2's order: the critic first.
    for side in sorted(sides(dump, request), key=lambda s: s != "critic"):
        grams = read_stream(dump, side, request)
        notes += dropped_note(dump, side, grams)
        tasks = grams.tasks
        s = series[side] = norm_series(grams.env_steps, grams.values)
        for t, steps in enumerate(s.env_steps.tolist()):
            where = {"side": side, "env_steps": steps}
            per_task += [{**where, "task": task, "norm": s.norms[t, k]} for k, task in enumerate(tasks)]
            aggregates.append(
                {**where, "mean_norm": s.mean_norm[t], "fairgrad_norm": s.fairgrad_norm[t], "spread": s.spread[t]}
            )
        numbers.append(
            {
                "side": side,
                "minibatches": len(grams.values),
                "spread_median": s.median_spread,
                "spread_first": float(s.spread[0]),
                "spread_last": float(s.spread[-1]),
                "mean_norm_last": float(s.mean_norm[-1]),
                "fairgrad_norm_last": float(s.fairgrad_norm[-1]),
            }
        )
    # FG-c is a critic's aggregator: Figure 2 (b) shows the actor without it.
    fairgrad = [side for side in series if side != "actor"]
    return Product(
        name=f"norms-{run_name(dump)}",
        figure=lambda: norms_figure(series, tasks, fairgrad),
        tables={"": per_task, "-aggregators": aggregates},
        numbers=numbers,
        notes=notes,
    )

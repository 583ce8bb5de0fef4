"""`toppo-diag contributions`."""

from __future__ import annotations

from typing import Any

from toppo_diag.request import Product, Request


def contributions(request: Request) -> Product:
    """Per-task contribution ||w_i g_i|| across training (Figure D.4): (a) raw, mean; (b) +PopArt, mean; (c) raw, +FG;
    (d) +PopArt, +FG. Panels (c) and (d) coincide (Corollary 1). One dump, trained with PopArt.
    """
    import numpy as np

    from toppo.combiners import make
    from toppo.combiners.geometry import contributions as lengths
    from toppo.combiners.geometry import spread
    from toppo.dump import open_dump
    from toppo_diag.analysis.series import Steps
    from toppo_diag.conditions import default_side, has_popart, raw, run_name
    from toppo_diag.plots.contributions import contributions_figure
    from toppo_diag.reading import dropped_note, read_grams

    dump = open_dump(request.one_dump("contributions"))
    side = request.side or default_side(dump)
    grams = read_grams(dump, side, request)
    notes = dropped_note(dump, side, grams)
    sources = {"raw": grams}
    if side == "critic" and has_popart(dump):
        sources = {"raw": raw(grams), "+PopArt": grams}
    else:
        notes.append(f"{dump.path}: no PopArt on the {side}, so only the panels on its gradients as they are")
    found = {
        f"{source}, {aggregator}": lengths(g.values, make(spec).solve_many(g.values).weights)
        for aggregator, spec in (("mean", "mean"), ("FG", "fairgrad:alpha=1"))
        for source, g in sources.items()
    }
    steps = Steps.of(grams.env_steps)
    panels = {name: steps.mean(values) for name, values in found.items()}
    spreads = {name: float(np.median(spread(values))) for name, values in found.items()}
    rows: list[dict[str, Any]] = [
        {"condition": name, "env_steps": int(s), "task": task, "contribution": panels[name][t, k]}
        for name in panels
        for t, s in enumerate(steps.env_steps)
        for k, task in enumerate(grams.tasks)
    ]
    numbers: list[dict[str, Any]] = [{"condition": name, "spread": spreads[name]} for name in panels]
    if len(sources) == 2:
        c, d = found["raw, FG"], found["+PopArt, FG"]
        apart = float(np.max(np.abs(c - d) / np.maximum(np.abs(c).max(axis=1, keepdims=True), np.finfo(float).tiny)))
        notes.append(f"(c) and (d) differ by at most {apart:.1e} of the largest contribution of a minibatch")
    return Product(
        name=f"contributions-{side}-{run_name(dump)}",
        figure=lambda: contributions_figure(steps.env_steps, panels, spreads, grams.tasks),
        tables={"": rows},
        numbers=numbers,
        notes=notes,
    )

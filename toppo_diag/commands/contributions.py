"""The command `contributions`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo_diag.commands.command import instrument
from toppo_diag.product import Product
from toppo_diag.request import One, Request, Selection, stem


@instrument
def contributions(dumps: One, **selection: Unpack[Selection]) -> Product:
    """How much each task contributes to the step, ||w_i g_i||, over training (Figure D.4).

    Two panels, for the mean and for FairGrad. A run of TOPPO's trainer that normalised its value targets has two of
    each: with the normalisation taken back, and with it. By Corollary 1, those of FairGrad coincide.
    """
    from toppo_diag.analysis.contributions import contribution_series, largest_difference
    from toppo_diag.plots.contributions import contributions_figure
    from toppo_diag.reading.conditions import chosen_side, has_popart, of_trainer, raw, run_name
    from toppo_diag.reading.dumps import dropped_note, read_grams

    request = Request.of(dumps, **selection)
    dump = request.open_one("contributions")
    side, notes = chosen_side(dump, request)
    grams = read_grams(dump, side, request)
    notes += dropped_note(dump, side, grams)
    sources = {"": grams}
    if side == "critic" and has_popart(dump):
        sources = {"raw, ": raw(grams), "+PopArt, ": grams}
    elif of_trainer(dump):
        notes.append(f"{dump.path}: no PopArt on the {side}, so only the panels of the recorded gradients are drawn")
    fairgrad = "FG" if of_trainer(dump) else "FairGrad"
    found = {
        f"{source}{aggregator}": contribution_series(g.env_steps, g.values, spec, g.known)
        for aggregator, spec in (("mean", "mean"), (fairgrad, "fairgrad:alpha=1"))
        for source, g in sources.items()
    }
    env_steps = next(iter(found.values())).env_steps
    rows: list[dict[str, Any]] = [
        {"condition": name, grams.step.name: int(s), "task": task, **series.lengths.columns("contribution", t, k)}
        for name, series in found.items()
        for t, s in enumerate(env_steps)
        for k, task in enumerate(grams.tasks)
    ]
    if len(sources) == 2:
        apart = largest_difference(found["raw, FG"].each, found["+PopArt, FG"].each)
        notes.append(f"(c) and (d) differ by at most {apart:.1e} of the largest contribution of a minibatch")
    spread_rows: list[dict[str, Any]] = [
        {"condition": name, **grams.where(n), "spread": series.spreads[n]}
        for name, series in found.items()
        for n in range(len(grams.values))
    ]
    lengths = {name: series.lengths.median for name, series in found.items()}
    spreads = {name: series.spread for name, series in found.items()}
    return Product(
        name=stem("contributions", side, run_name(dump)),
        draw=lambda: contributions_figure(env_steps, lengths, spreads, grams.tasks, axis=dump.step.label),
        rows={"": rows, "-spreads": spread_rows},
        headline=[
            {"condition": name, "minibatches": len(grams.values), **spread.columns("spread")}
            for name, spread in spreads.items()
        ],
        notes=notes,
    )

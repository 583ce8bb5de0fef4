"""The command `health`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem


@instrument
def health(dumps: Sources, **selection: Unpack[Selection]) -> Product:
    """Two numbers about the health of the gradients, compared across runs (Figure D.3).

    The first is the mean off-diagonal |cos|. The second is the top-1 mass under a mean: the largest contribution of a
    task over the sum of all. The last condition is shown again under FairGrad. Runs with different tasks have a picture
    each, one below the other.
    """
    request = Request.of(dumps, **selection)
    opened = request.open_all()
    if request.tasks or len({dump.tasks for dump in opened}) == 1:
        return _compared(opened, request)
    return side_by_side("health", request, lambda dump: _compared([dump], request))


def _compared(opened: Sequence[Dump], request: Request) -> Product:
    """The product of dumps with the same tasks: one bar for each condition."""
    from toppo_diag.analysis.health import HealthSeries, health_series
    from toppo_diag.plots.health import health_figure
    from toppo_diag.reading.conditions import chosen_side, conditions_of, of_trainer, run_names, told_apart
    from toppo_diag.reading.dumps import dropped_note

    side, notes = chosen_side(opened[0], request)
    conditions, missing = conditions_of(opened, side)
    notes += missing
    if any(c.label.startswith("+PopArt+LN") for c in conditions):
        # The cumulative ladder of Figure D.3: vanilla, +PopArt, +PopArt+LN, +PopArt+LN+FG.
        conditions = [c for c in conditions if not (c.label.split(" ")[0] == "+LN" and c.invert_popart)]
    bars = [(c.label, c, "mean") for c in conditions]
    last = conditions[-1]
    settings, of, run = last.label.partition(" (")
    again = f"{settings}+FG{of}{run}" if of_trainer(last.dump) else f"{last.label} (FairGrad)"
    bars.append((again, last, "fairgrad:alpha=1"))
    names = {dump.path: name for dump, name in zip(opened, told_apart(opened), strict=True)}
    found: dict[str, HealthSeries] = {}
    rows: list[dict[str, Any]] = []
    headline: list[dict[str, Any]] = []
    n_tasks = 0
    for label, condition, spec in bars:
        grams = condition.grams(side, request)
        notes += dropped_note(condition.dump, side, grams)
        n_tasks = len(grams.tasks)
        run = names[condition.dump.path]
        s = found[label] = health_series(grams.values, spec, grams.known)
        rows += [
            {
                "condition": label,
                "run": run,
                "combiner": spec,
                **grams.where(n),
                "mean_abs_cosine": s.mean_abs_cosine[n],
                "top_1_mass": s.top_1_mass[n],
            }
            for n in range(len(grams.values))
        ]
        headline.append({"condition": label, "run": run, "minibatches": len(grams.values), **s.columns()})
    cosines = {label: s.mean_abs_cosine for label, s in found.items()}
    masses = {label: s.top_1_mass for label, s in found.items()}
    return Product(
        name=stem("health", side, run_names(opened)),
        draw=lambda figure=None: health_figure(cosines, masses, n_tasks, side, figure=figure),
        rows={"": rows},
        headline=headline,
        notes=list(dict.fromkeys(notes)),
    )

"""The command `heatmaps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from toppo_diag.commands.command import instrument
from toppo_diag.plots.names import short_steps
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem

if TYPE_CHECKING:
    from toppo_diag.analysis.heatmap import Panel


@instrument
def heatmaps(dumps: Sources, **selection: Unpack[Selection]) -> Product:
    """Gram heatmaps: which tasks agree, and how unequal the gradients are (Figures 3, D.1 and D.2).

    Shows a typical minibatch of each stage (default: early, mid and late): the one whose mean |cos| is the median. Off
    the diagonal are the cosines. On the diagonal is log10 G_ii. Dots above show each ||g_i|| / K. The number above is
    the spread max / min: its median over the dumped minibatches, and its range. A run of TOPPO's trainer that
    normalised its value targets gives two columns: with the normalisation taken back, and with it.
    """
    from toppo_diag.analysis.heatmap import typical_panel
    from toppo_diag.analysis.stages import STAGES
    from toppo_diag.plots.heatmap import heatmap_figure
    from toppo_diag.reading.conditions import chosen_side, conditions_of, open_alike, run_names
    from toppo_diag.reading.dumps import dropped_note

    request = Request.of(dumps, **selection)
    opened = open_alike(request)
    side, notes = chosen_side(opened[0], request)
    conditions, missing = conditions_of(opened, side)
    notes += missing
    panels: dict[tuple[str, str], Panel] = {}
    at: dict[str, list[int]] = {}
    headline: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        grams = condition.grams(side, request, STAGES)
        notes += dropped_note(condition.dump, side, grams)
        wanted = request.stage or (() if request.chooses_snapshots else STAGES)
        if absent := [stage for stage in wanted if stage not in grams.stages.values()]:
            notes.append(f"{condition.dump.path}: has too few snapshots for {', '.join(absent)}")
        for snapshot, stage in grams.stages.items():
            members = grams.within(snapshot)
            panel = typical_panel(grams.values[members], grams.tasks, grams.known_of(members))
            panels[stage, condition.label] = panel
            shown = members[panel.shown]
            where = {"stage": stage, "condition": condition.label, grams.step.name: int(grams.env_steps[shown])}
            at.setdefault(stage, []).append(int(grams.env_steps[shown]))
            minibatch = int(grams.minibatch[shown])
            numbers = {
                "minibatches": len(members),
                "shown": minibatch,
                **panel.spread.columns("spread"),
                **panel.mean_abs_cosine.columns("mean_abs_cosine"),
            }
            headline.append({**where, **numbers})
            rows += [
                {
                    **where,
                    "minibatch": minibatch,
                    "task": a,
                    "task_j": b,
                    "cosine": panel.cosine[i, j],
                    "log10_G_ii": panel.log10_square[i],
                }
                for i, a in enumerate(panel.tasks)
                for j, b in enumerate(panel.tasks)
            ]
    rank = {stage: n for n, stage in enumerate(STAGES)}
    order = sorted(at, key=lambda stage: (rank.get(stage, len(rank)), min(at[stage])))
    labels = {stage: _label(stage, at[stage], opened[0].step.units) for stage in order}
    return Product(
        name=stem("heatmaps", side, run_names(opened)),
        draw=lambda: heatmap_figure(panels, labels, [c.label for c in conditions], side, minibatch=request.minibatch),
        rows={"": rows, "-stages": headline},
        headline=headline,
        notes=list(dict.fromkeys(notes)),
    )


def _label(stage: str, steps: Sequence[int], units: str) -> str:
    """The label of a row, with its steps, or their range where the dumps differ."""
    ends = dict.fromkeys([short_steps(min(steps)), short_steps(max(steps))])
    return f"{stage}, {' to '.join(ends)} {units}"

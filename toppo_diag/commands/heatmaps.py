"""`toppo-diag heatmaps`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toppo_diag.request import Product, Request

if TYPE_CHECKING:
    from toppo_diag.analysis.heatmap import Panel


def heatmaps(request: Request) -> Product:
    """Gram heatmaps (Figures 3, D.1; --side actor: D.2): cosines, log10 G_ii, ||g_i||/K, spread; first dumped
    minibatch of each stage. Conditions are the columns: with PopArt, without (sigma^2 inverted), with LayerNorm.
    """
    from toppo_diag.analysis.heatmap import gram_panel
    from toppo_diag.analysis.stages import STAGES
    from toppo_diag.conditions import (
        critic_conditions,
        default_side,
        missing_conditions,
        open_alike,
        plain_conditions,
        run_name,
    )
    from toppo_diag.plots.heatmap import heatmap_figure
    from toppo_diag.reading import dropped_note

    dumps = open_alike(request)
    side = request.side or default_side(dumps[0])
    conditions = critic_conditions(dumps) if side == "critic" else plain_conditions(dumps)
    notes = missing_conditions(conditions) if side == "critic" else []
    panels: dict[tuple[str, str], Panel] = {}
    numbers: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        grams = condition.grams(side, request, STAGES)
        notes += dropped_note(condition.dump, side, grams)
        wanted = request.stage or (() if request.chooses_snapshots else STAGES)
        if absent := [stage for stage in wanted if stage not in grams.stages.values()]:
            notes.append(f"{condition.dump.path}: too few snapshots for {', '.join(absent)}")
        for snapshot, stage in grams.stages.items():
            first = int((grams.snapshot == snapshot).argmax())
            panel = gram_panel(grams.values[first], grams.tasks)
            panels[stage, condition.label] = panel
            where = {"stage": stage, "condition": condition.label, "env_steps": int(grams.env_steps[first])}
            numbers.append({**where, "spread": panel.spread, "mean_abs_cosine": panel.mean_abs_cosine})
            rows += [
                {**where, "task": a, "task_j": b, "cosine": panel.cosine[i, j], "log10_G_ii": panel.log10_square[i]}
                for i, a in enumerate(panel.tasks)
                for j, b in enumerate(panel.tasks)
            ]
    stages = list(dict.fromkeys(stage for stage, _ in panels))
    labels = {stage: _label(stage, {n["env_steps"] for n in numbers if n["stage"] == stage}) for stage in stages}
    name = f"heatmaps-{side}" + ("" if len(dumps) > 1 else f"-{run_name(dumps[0])}")
    return Product(
        name=name,
        figure=lambda: heatmap_figure(panels, labels, [c.label for c in conditions], side),
        tables={"": rows},
        numbers=numbers,
        notes=list(dict.fromkeys(notes)),
    )


def _label(stage: str, steps: set[int]) -> str:
    """A row's label, with its steps where all dumps agree on them."""
    return f"{stage}, {_short_number(steps.pop())} steps" if len(steps) == 1 else stage


def _short_number(steps: int) -> str:
    return f"{steps / 1e6:.3g}M" if steps >= 100_000 else f"{steps / 1e3:.3g}k"

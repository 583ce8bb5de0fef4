"""`toppo-diag health`."""

from __future__ import annotations

from typing import Any

from toppo_diag.request import Product, Request


def health(request: Request) -> Product:
    """Health of the Gram across conditions (Figure D.3): mean off-diagonal |cos|, and top-1 weighted contribution mass
    under the mean; the last condition again under FairGrad.
    """
    import numpy as np

    from toppo.combiners import make
    from toppo.combiners.geometry import mean_abs_cosine
    from toppo_diag.analysis.health import top_1_mass
    from toppo_diag.analysis.series import Steps
    from toppo_diag.conditions import (
        critic_conditions,
        default_side,
        missing_conditions,
        open_alike,
        plain_conditions,
        run_name,
    )
    from toppo_diag.plots.health import health_figure
    from toppo_diag.reading import dropped_note

    dumps = open_alike(request)
    side = request.side or default_side(dumps[0])
    conditions = critic_conditions(dumps) if side == "critic" else plain_conditions(dumps)
    notes = missing_conditions(conditions) if side == "critic" else []
    if any(c.label.startswith("+PopArt+LN") for c in conditions):
        # The cumulative ladder of Figure D.3: vanilla, +PopArt, +PopArt+LN, +PopArt+LN+FG.
        conditions = [c for c in conditions if not (c.label.split(" ")[0] == "+LN" and c.invert_popart)]
    bars = [(c.label, c, "mean") for c in conditions]
    bars.append((f"{conditions[-1].label}+FG", conditions[-1], "fairgrad:alpha=1"))
    cosine: dict[str, np.ndarray] = {}
    top_1: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    n_tasks = 0
    for label, condition, spec in bars:
        grams = condition.grams(side, request)
        notes += dropped_note(condition.dump, side, grams)
        n_tasks = len(grams.tasks)
        steps = Steps.of(grams.env_steps)
        cosine[label] = steps.mean(mean_abs_cosine(grams.values))
        top_1[label] = steps.mean(top_1_mass(grams.values, make(spec).solve_many(grams.values).weights))
        rows += [
            {
                "condition": label,
                "run": run_name(condition.dump),
                "combiner": spec,
                "env_steps": int(s),
                "mean_abs_cosine": cosine[label][t],
                "top_1_mass": top_1[label][t],
            }
            for t, s in enumerate(steps.env_steps)
        ]
        numbers.append(
            {
                "condition": label,
                "run": run_name(condition.dump),
                "mean_abs_cosine": float(np.median(cosine[label])),
                "mean_abs_cosine_first": float(cosine[label][0]),
                "top_1_mass": float(np.median(top_1[label])),
                "top_1_mass_first": float(top_1[label][0]),
            }
        )
    return Product(
        name=f"health-{side}" + ("" if len(dumps) > 1 else f"-{run_name(dumps[0])}"),
        figure=lambda: health_figure(cosine, top_1, n_tasks, side),
        tables={"": rows},
        numbers=numbers,
        notes=list(dict.fromkeys(notes)),
    )

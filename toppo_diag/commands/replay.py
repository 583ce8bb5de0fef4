"""The command `replay`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo_diag.commands.command import instrument
from toppo_diag.product import Product
from toppo_diag.request import One, Request, Selection, Texts, stem


@instrument
def replay(dumps: One, *, combiners: Texts = ("fairgrad:alpha=1", "mean"), **selection: Unpack[Selection]) -> Product:
    """What other combiners would have done with the recorded gradients (Section D.2).

    Combines every dumped Gram again. For each task, shows its weight, contribution, progress g_i'd and cosine with the
    step. For each step, shows its worst-off task, and its direction and distance from the step that training took.

    Args:
        combiners: combiners with their options, separated by commas, such as 'mean,cagrad:c=0.4'; or all.
    """
    from toppo_diag.analysis.replay import Replay, agreement, cosine_table
    from toppo_diag.analysis.replay import replay as again
    from toppo_diag.commands.options import chosen_combiners
    from toppo_diag.plots.replay import replay_figure
    from toppo_diag.reading.conditions import (
        as_combined,
        chosen_side,
        combiner_of,
        of_each_task,
        run_name,
        weights_of_step,
    )
    from toppo_diag.reading.dumps import dropped_note, read_grams
    from toppo_diag.reading.progress import tracked

    request = Request.of(dumps, **selection)
    dump = request.open_one("replay")
    side, notes = chosen_side(dump, request)
    grams = as_combined(dump, side, read_grams(dump, side, request))
    notes += dropped_note(dump, side, grams)
    grams = grams.some_known()
    whole = not request.tasks and request.layer is None
    used = weights_of_step(dump, side, grams) if whole else None
    if used is None:
        why = "were not recorded" if whole else "are for all tasks and layers"
        notes.append(
            f"{dump.path}: the weights of side {side} in training {why}; the comparison with training is left out"
        )
    found: dict[str, Replay] = {}
    for spec, combiner in tracked("combiners", list(chosen_combiners(combiners).items())):
        losses = None
        if combiner.needs_losses:
            own = of_each_task(grams, f"loss_{side}")
            losses = own if own is not None else of_each_task(grams, "loss")
        if combiner.needs_losses and losses is None:
            notes.append(f"{dump.path}: {spec} is left out: it needs losses, and no loss_{side} was recorded")
            continue
        orders = grams.beside.get(f"{side}_order") if combiner.needs_order and whole else None
        if combiner.needs_order and orders is None:
            notes.append(f"{spec}: its random orders are drawn anew (seed 0), because no recorded orders fit")
        if combiner.state_names:
            notes.append(f"{spec} has a memory: here it starts afresh and sees only the dumped minibatches")
        try:
            found[spec] = again(combiner, grams.values, losses, orders, grams.known)
        except ValueError as error:
            notes.append(f"{spec} is left out: {error}")
    summed = {spec: agreement(r, grams.values, used) for spec, r in found.items()}
    rows: list[dict[str, Any]] = []
    steps_rows: list[dict[str, Any]] = []
    for spec, r in found.items():
        for n in range(len(grams.values)):
            where = {"combiner": spec, **grams.where(n)}
            rows += [
                {
                    **where,
                    "task": task,
                    "weight": r.weights[n, k],
                    "contribution": r.contributions[n, k],
                    "progress": r.progress[n, k],
                    "cosine": r.cosine[n, k],
                }
                for k, task in enumerate(grams.tasks)
            ]
            steps_rows.append(
                {
                    **where,
                    "norm": r.norm[n],
                    "worst_progress": r.worst_progress[n],
                    "worst_cosine": r.worst_cosine[n],
                    "spread": r.spread[n],
                    "top_1_mass": r.top_1[n],
                    "residual": r.residual[n],
                    "status": int(r.status[n]),
                    "cosine_to_training": summed[spec].aligned[n],
                    "distance_to_training": summed[spec].apart[n],
                }
            )
    trained = combiner_of(dump, side)
    if trained:
        notes.append(f"training used {trained} on side {side}")
    names, worst = list(found), [r.worst_cosine for r in found.values()]
    cosines = cosine_table(summed.values())
    return Product(
        name=stem("replay", side, run_name(dump)),
        draw=lambda: replay_figure(names, grams.tasks, cosines, worst, side),
        rows={"": rows, "-steps": steps_rows},
        headline=[{"combiner": spec, **s.headline} for spec, s in summed.items()],
        notes=notes,
    )

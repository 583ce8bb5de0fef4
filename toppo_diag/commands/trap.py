"""The command `trap`."""

from __future__ import annotations

from typing import Annotated, Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.checking import MOST, Between
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem


@instrument
def trap(
    dumps: Sources,
    *,
    starved_snapshots: Annotated[int, Between(1, MOST)] = 3,
    starved_share: Annotated[float, Between(0, 1)] = 0.1,
    **selection: Unpack[Selection],
) -> Product:
    """The self-reinforcing tail trap: tasks that do not succeed and get almost no share of the step (Section 3).

    Draws each task's share of the critic's combined direction beside its success, and flags the tasks that are starved
    for some snapshots in a row. The figure is not in the paper.

    Args:
        starved_snapshots: a task is flagged after this many starved snapshots in a row.
        starved_share: a task is starved below this fraction of the even share 1/K.
    """
    from toppo_diag.analysis.trap import is_fairgrad_one
    from toppo_diag.analysis.trap import trap as measure
    from toppo_diag.plots.trap import trap_figure
    from toppo_diag.reading.conditions import default_side, run_name, success_of, training_weights
    from toppo_diag.reading.dumps import dropped_note, read_grams

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        side = request.side or default_side(dump)
        grams = read_grams(dump, side, request)
        notes = dropped_note(dump, side, grams)
        weights = training_weights(dump, side, grams)
        if weights is None:
            notes.append(f"{dump.path}: no {side}_weights were recorded, so the weights of a mean are used")
        success = success_of(grams)
        if success is None:
            notes.append(f"{dump.path}: no success was recorded, so only the shares are drawn")
        threshold = starved_share / len(grams.tasks)
        spec = dump.attrs.get("combiners", {}).get(side, "")
        found = measure(grams.env_steps, grams.values, weights, success, threshold)
        starved = [task for task, n in zip(grams.tasks, found.starved_for, strict=True) if n >= starved_snapshots]

        def success_at(t: int, k: int) -> float:
            return float("nan") if found.success is None else float(found.success[t, k])

        remarks = [] if weights is not None else ["weights of the mean, assumed: none were recorded"]
        if found.coincide:
            why = "FairGrad, \u03b1 = 1: Theorem 1" if is_fairgrad_one(spec) else "equal shares"
            remarks.append(f"all lines coincide ({why})")
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
            name=stem("trap", side, run_name(dump)),
            draw=lambda figure=None: trap_figure(
                found.env_steps,
                found.shares,
                found.success,
                starved,
                threshold,
                grams.tasks,
                side,
                in_a_row=starved_snapshots,
                remarks=remarks,
                figure=figure,
            ),
            rows={"": rows},
            headline=headline,
            notes=notes,
        )

    return side_by_side("trap", request, one)

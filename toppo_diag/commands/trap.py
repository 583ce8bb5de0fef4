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

    Draws each task's share of the combined direction beside its success, return or loss, and flags the tasks that are
    starved in the last snapshots. The figure is not in the paper.

    Args:
        starved_snapshots: number of snapshots, up to the last one, in which a task must be starved to be flagged.
        starved_share: a task is starved if its share is below this fraction of the even share 1/K, by more than noise.
    """
    from toppo_diag.analysis.trap import is_fairgrad_one
    from toppo_diag.analysis.trap import trap as measure
    from toppo_diag.analysis.typical import with_range
    from toppo_diag.plots.trap import trap_figure
    from toppo_diag.reading.conditions import (
        chosen_side,
        combiner_of,
        outcome_of,
        run_name,
        sums_losses,
        training_weights,
    )
    from toppo_diag.reading.dumps import dropped_note, read_grams

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        side, notes = chosen_side(dump, request)
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        weights = training_weights(dump, side, grams)
        known = weights is not None or sums_losses(dump)
        remarks = []
        if not known:
            remarks.append("weights were not recorded: a plain mean is assumed, so no task is called starved")
            notes.append(f"{dump.path}: no {side}_weights were recorded; the shares are those of a plain mean")
        elif weights is None:
            remarks.append("the step is the sum of the losses")
        outcome = outcome_of(dump, side, grams)
        if outcome is None:
            notes.append(f"{dump.path}: no success, return or loss was recorded, so only the shares are drawn")
        spec = combiner_of(dump, side) or ""
        found = measure(
            grams.env_steps,
            grams.values,
            weights,
            None if outcome is None else outcome.values,
            starved_share,
            grams.known,
        )
        starved = [
            task for task, n in zip(grams.tasks, found.starved_for, strict=True) if known and n >= starved_snapshots
        ]
        if found.coincide:
            why = "FairGrad, \u03b1 = 1: Theorem 1" if is_fairgrad_one(spec) else "equal shares"
            remarks.append(f"all lines coincide ({why})")

        def did(t: int, k: int) -> dict[str, float]:
            return {} if outcome is None or found.outcome is None else {outcome.name: float(found.outcome[t, k])}

        rows: list[dict[str, Any]] = [
            {
                grams.step.name: int(s),
                "task": task,
                **with_range("share", found.shares[t, k], found.lowest[t, k], found.highest[t, k]),
                **did(t, k),
            }
            for t, s in enumerate(found.env_steps)
            for k, task in enumerate(grams.tasks)
        ]
        headline: list[dict[str, Any]] = [
            {
                "task": task,
                "snapshots": len(found.env_steps),
                "minibatches": len(grams.values),
                **found.typical_shares[k].columns("share"),
                "starved_for": int(found.starved_for[k]) if known else 0,
                **did(-1, k),
                "flag": "starved" if task in starved else "",
            }
            for k, task in enumerate(grams.tasks)
        ]
        return Product(
            name=stem("trap", side, run_name(dump)),
            draw=lambda figure=None: trap_figure(
                found.env_steps,
                found.shares,
                found.outcome,
                starved,
                found.threshold,
                grams.tasks,
                side,
                beside=None if outcome is None else (outcome.label, outcome.scale),
                in_a_row=starved_snapshots,
                remarks=remarks,
                axis=dump.step.label,
                figure=figure,
            ),
            rows={"": rows},
            headline=headline,
            notes=notes,
        )

    return side_by_side("trap", request, one)

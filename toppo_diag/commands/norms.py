"""The command `norms`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem


@instrument
def norms(dumps: Sources, *, raw: bool = False, **selection: Unpack[Selection]) -> Product:
    """The length of each task's gradient over training, one panel for each side (Figure 2).

    Bold lines show the length of two steps: that of the mean and that of FairGrad. Uses the Gram stream if the dump
    has one.

    Args:
        raw: show the gradients of a loss without normalised value targets (runs of TOPPO's trainer).
    """
    from toppo_diag.analysis.norms import norm_series
    from toppo_diag.plots.norms import norms_figure
    from toppo_diag.reading.conditions import has_popart, in_order, run_name, sides, with_fairgrad
    from toppo_diag.reading.dumps import dropped_note, read_stream, stream_note
    from toppo_diag.reading.raw import raw_stream

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        notes = stream_note(dump)
        taken_back: list[str] = []
        series = {}
        tasks: tuple[str, ...] = ()
        per_task: list[dict[str, Any]] = []
        aggregates: list[dict[str, Any]] = []
        headline: list[dict[str, Any]] = []
        for side in in_order(sides(dump, request)):
            normalised = side == "critic" and has_popart(dump)
            if raw and normalised:
                grams, without_sigma = raw_stream(dump, side, request)
                taken_back.append(side)
                notes += without_sigma
            else:
                grams = read_stream(dump, side, request)
            if normalised and not raw:
                notes.append(f"{dump.path}: the critic's gradients are those under PopArt; `raw` takes it back")
            notes += dropped_note(dump, side, grams)
            tasks = grams.tasks
            s = series[side] = norm_series(grams.env_steps, grams.values, grams.known)
            for t, steps in enumerate(s.env_steps.tolist()):
                where = {"side": side, grams.step.name: steps}
                per_task += [{**where, "task": task, **s.norms.columns("norm", t, k)} for k, task in enumerate(tasks)]
                aggregates.append(
                    {
                        **where,
                        **s.mean_norm.columns("mean_norm", t),
                        **s.fairgrad_norm.columns("fairgrad_norm", t),
                        **s.spread.columns("spread", t),
                    }
                )
            headline.append(
                {
                    "side": side,
                    "minibatches": len(grams.values),
                    **s.typical["spread"].columns("spread"),
                    **s.spread.columns("spread_first_step", 0),
                    **s.spread.columns("spread_last_step", -1),
                    **s.typical["mean_norm"].columns("mean_norm"),
                    **s.typical["fairgrad_norm"].columns("fairgrad_norm"),
                }
            )
        if raw and not taken_back:
            notes.append(f"{dump.path}: no side of it was trained with PopArt, so nothing was taken back")
        fairgrad = [side for side in series if with_fairgrad(dump, side)]
        return Product(
            name=stem("norms", request.side or "", run_name(dump)),
            draw=lambda figure=None: norms_figure(
                series, tasks, fairgrad, raw=taken_back, axis=dump.step.label, figure=figure
            ),
            rows={"": per_task, "-aggregators": aggregates},
            headline=headline,
            notes=notes,
        )

    return side_by_side("norms", request, one)

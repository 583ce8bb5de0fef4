"""The command `scalars`."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from toppo_diag.commands.command import instrument
from toppo_diag.product import Product
from toppo_diag.request import One, Request, Selection, Texts, as_texts, stem


@instrument
def scalars(dumps: One, *, to: Texts = None, **selection: Unpack[Selection]) -> Product:
    """The scalars of a run for TensorBoard, Weights & Biases, or a table of your own.

    For each side: the spread of the gradients, mean |cos|, share of negative pairs, effective rank, top-1 mass, and
    the number of starved tasks. For each task: the length of its gradient and its share of the step. Each is the
    median over the minibatches of a snapshot.

    Args:
        to: where else to write than a CSV file, separated by commas: tensorboard, wandb, parquet.
    """
    from toppo_diag.analysis.scalars import scalar_series
    from toppo_diag.reading.conditions import run_name, sides, sums_losses, training_weights
    from toppo_diag.reading.dumps import dropped_note, read_grams
    from toppo_diag.sinks import chosen_sinks

    sinks = chosen_sinks(as_texts(to))
    request = Request.of(dumps, **selection)
    dump = request.open_one("scalars")
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    headline: list[dict[str, Any]] = []
    for side in sides(dump, request):
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        weights = training_weights(dump, side, grams)
        decided = weights is not None or sums_losses(dump)
        if not decided:
            notes.append(f"{dump.path}: no {side}_weights were recorded; the shares are those of a plain mean")
        series = scalar_series(grams.env_steps, grams.values, weights, grams.known, decided)
        rows += series.rows(side, grams.tasks)
        headline.append({"side": side, "steps": len(series.steps), **series.medians})
    return Product(
        name=stem("scalars", request.side or "", run_name(dump)),
        draw=None,
        rows={"": rows},
        headline=headline,
        notes=notes,
        sinks=[partial(sink, rows, dump.step.name) for sink in sinks],
    )

"""The command `conflicts`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem


@instrument
def conflicts(dumps: Sources, **selection: Unpack[Selection]) -> Product:
    """Which tasks pull against each other, how often, and in which layers.

    Draws the share of pairs with a negative cosine and the effective rank over training, and how often each pair is in
    conflict. If the dump holds Grams by layer or gradients, also ranks the layers by their share of negative pairs. The
    figure is not in the paper.
    """
    from toppo_diag.analysis.conflicts import conflict_series, layer_scores
    from toppo_diag.analysis.stages import STAGES
    from toppo_diag.plots.conflicts import conflicts_figure
    from toppo_diag.reading.conditions import run_name, sides
    from toppo_diag.reading.dumps import (
        chosen_minibatches,
        chosen_snapshots,
        chosen_tasks,
        dropped_note,
        layer_grams,
        read_stream,
    )

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        kept = chosen_tasks(dump, request)
        series, pairs = {}, {}
        layers: dict[str, list[tuple[str, float]]] = {}
        tasks: tuple[str, ...] = ()
        notes: list[str] = []
        over_time: list[dict[str, Any]] = []
        by_pair: list[dict[str, Any]] = []
        by_layer: list[dict[str, Any]] = []
        headline: list[dict[str, Any]] = []
        if not dump.n_stream:
            notes.append(f"{dump.path}: has no Gram stream, so the figure shows its snapshots")
        for side in sides(dump, request):
            grams = read_stream(dump, side, request)
            notes += dropped_note(dump, side, grams)
            tasks = grams.tasks
            s = conflict_series(grams.env_steps, grams.values)
            found = s.found
            series[side], pairs[side] = (s.env_steps, s.share, s.effective_rank), found.pair_share
            over_time += [
                {
                    "side": side,
                    "env_steps": int(step),
                    "negative_share": s.share[t],
                    "effective_rank": s.effective_rank[t],
                }
                for t, step in enumerate(s.env_steps)
            ]
            by_pair += [
                {
                    "side": side,
                    "task": tasks[i],
                    "task_j": tasks[j],
                    "negative_share": found.pair_share[i, j],
                    "mean_cosine": found.pair_cosine[i, j],
                }
                for i, j in s.pairs
            ]
            worst = s.pairs[0] if s.pairs else None
            numbers = {
                "side": side,
                "negative_share": s.mean_share,
                "effective_rank": s.mean_rank,
                "worst_pair": " and ".join(tasks[i] for i in worst) if worst else "none",
                "worst_pair_share": float(found.pair_share[worst]) if worst else float("nan"),
            }
            if dump.has_layers(side) and dump.n_snapshots and request.layer is None:
                snapshots = chosen_snapshots(dump, request, STAGES)
                index = [(n, m) for n in snapshots for m in chosen_minibatches(dump, request)]
                of_layers = layer_grams(dump, side, index, request.scheduler)
                layers[side] = list(layer_scores(of_layers, dump.layer_names(side), kept).items())
                by_layer += [
                    {"side": side, "rank": n + 1, "layer": name, "conflict_score": score}
                    for n, (name, score) in enumerate(layers[side])
                ]
                numbers["worst_layer"] = layers[side][0][0]
            headline.append(numbers)
        if not any(dump.has_layers(side) for side in dump.sides):
            notes.append(f"{dump.path}: holds no Grams by layer and no slabs, so layers are left out; record either")
        elif layers and not request.chooses_snapshots:
            notes.append("layers are ranked over the early, mid and late snapshots; choose others with `snapshot`")
        return Product(
            name=stem("conflicts", request.side or "", run_name(dump)),
            draw=lambda figure=None: conflicts_figure(series, pairs, layers, tasks, figure=figure),
            rows={"": over_time, "-pairs": by_pair} | ({"-layers": by_layer} if by_layer else {}),
            headline=headline,
            notes=notes,
        )

    return side_by_side("conflicts", request, one)

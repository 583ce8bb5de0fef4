"""`toppo-diag conflicts`."""

from __future__ import annotations

from typing import Any

from toppo_diag.request import Product, Request


def conflicts(request: Request) -> Product:
    """Which tasks pull against each other (beyond the paper): share of negative pairs and effective rank over the Gram
    stream, the most conflicting pairs, and, where there are slabs, the layers ranked by conflict score.
    """
    import numpy as np

    from toppo.dump import open_dump
    from toppo_diag.analysis.conflicts import conflict_score, ranked_layers, ranked_pairs
    from toppo_diag.analysis.conflicts import conflicts as measure
    from toppo_diag.analysis.series import Steps
    from toppo_diag.analysis.stages import STAGES
    from toppo_diag.conditions import run_name, sides
    from toppo_diag.plots.conflicts import conflicts_figure
    from toppo_diag.reading import chosen_snapshots, chosen_tasks, dropped_note, grams_of_slabs, read_stream

    dump = open_dump(request.one_dump("conflicts"))
    kept = chosen_tasks(dump, request)
    series, pairs, layers = {}, {}, {}
    tasks: tuple[str, ...] = ()
    notes: list[str] = []
    over_time: list[dict[str, Any]] = []
    by_pair: list[dict[str, Any]] = []
    by_layer: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    if not dump.n_stream:
        notes.append(f"{dump.path}: has no Gram stream; drawn from its dumped snapshots")
    for side in sides(dump, request):
        grams = read_stream(dump, side, request)
        notes += dropped_note(dump, side, grams)
        tasks = grams.tasks
        found = measure(grams.values)
        steps = Steps.of(grams.env_steps)
        share, rank = steps.mean(found.share), steps.mean(found.effective_rank)
        series[side], pairs[side] = (steps.env_steps, share, rank), found.pair_share
        over_time += [
            {"side": side, "env_steps": int(s), "negative_share": share[t], "effective_rank": rank[t]}
            for t, s in enumerate(steps.env_steps)
        ]
        ranked = ranked_pairs(found)
        by_pair += [
            {
                "side": side,
                "task": tasks[i],
                "task_j": tasks[j],
                "negative_share": found.pair_share[i, j],
                "mean_cosine": found.pair_cosine[i, j],
            }
            for i, j in ranked
        ]
        number = {
            "side": side,
            "negative_share": float(found.share.mean()),
            "effective_rank": float(found.effective_rank.mean()),
            "worst_pair": " and ".join(tasks[i] for i in ranked[0]) if ranked else "none",
            "worst_pair_share": float(found.pair_share[ranked[0]]) if ranked else float("nan"),
        }
        if dump.has_slabs and dump.n_snapshots and request.layer is None:
            snapshots = chosen_snapshots(dump, request, STAGES)
            parts = dump.parameters(side)
            index = [(s, m) for s in snapshots for m in range(dump.n_minibatches)]
            slabs = grams_of_slabs(dump, side, index, [(part.slice,) for part in parts], request.scheduler)
            scores = conflict_score(slabs[:, :, kept][:, :, :, kept])
            layers[side] = [(parts[n].name, float(scores[:, n].mean())) for n in ranked_layers(scores)]
            by_layer += [
                {"side": side, "rank": n + 1, "layer": name, "conflict_score": score}
                for n, (name, score) in enumerate(layers[side])
            ]
            number["worst_layer"] = layers[side][0][0]
        numbers.append(number)
    if not dump.has_slabs:
        notes.append(f"{dump.path}: holds no slabs, so no layers; use the dump it was exported from")
    elif layers and not request.chooses_snapshots:
        notes.append("layers are ranked over the early, mid and late snapshots; choose others with --snapshot")
    tables = {"": over_time, "-pairs": by_pair} | ({"-layers": by_layer} if by_layer else {})
    masked = {side: np.asarray(p) for side, p in pairs.items()}
    return Product(
        name=f"conflicts-{run_name(dump)}",
        figure=lambda: conflicts_figure(series, masked, layers, tasks),
        tables=tables,
        numbers=numbers,
        notes=notes,
    )

"""The command `weights`."""

from __future__ import annotations

from typing import Any, Unpack

from toppo_diag.errors import require_at_least
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources


def weights(dumps: Sources, *, window: int = 10, **selection: Unpack[Selection]) -> Product:
    """The share of the combiner's weights that each task got, over training (Figure 5 of the TaskForce paper).

    Draws a moving average over the dumped minibatches. For a combiner that learns from rewards (TaskForce), also makes
    a table of the rewards.

    Args:
        window: dumped minibatches in the moving average.
    """
    from toppo.combiners import TaskForce
    from toppo_diag.analysis.weights import spread_over_phase, weight_series
    from toppo_diag.plots.style import combiner_label
    from toppo_diag.plots.weights import weights_figure
    from toppo_diag.reading.conditions import run_name, sides
    from toppo_diag.reading.dumps import dropped_note, read_grams

    require_at_least(1, window=window)
    request = Request.of(dumps, **selection)
    dump = request.open_one("weights")
    notes: list[str] = []
    lines = {}
    titles: dict[str, str] = {}
    tasks: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = []
    reward_rows: list[dict[str, Any]] = []
    headline: list[dict[str, Any]] = []
    wanted = sides(dump, request)
    recorded = [side for side in wanted if f"{side}_weights" in dump.names]
    if not recorded:
        notes.append(f"{dump.path}: no weights were recorded, so the weights of a mean are drawn")
    elif missing := [side for side in wanted if side not in recorded]:
        notes.append(f"{dump.path}: no weights of the {' and '.join(missing)} were recorded")
    phase = dump.attrs.get("env_steps_per_collect")
    for side in recorded or wanted:
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        tasks = grams.tasks
        found = weight_series(grams.beside[f"{side}_weights"] if recorded else None, grams.values, window)
        place = spread_over_phase(grams.env_steps, grams.minibatch, dump.n_minibatches, dump.env_steps, phase)
        lines[side] = (place, found.smooth)
        spec = dump.attrs.get("combiners", {}).get(side, "unknown combiner") if recorded else "mean"
        titles[side] = combiner_label(spec)
        rows += [
            {
                "side": side,
                **grams.where(n),
                "task": task,
                "weight": found.weights[n, k],
                "share": found.shares[n, k],
                "moving_average": found.smooth[n, k],
            }
            for n in range(len(found.weights))
            for k, task in enumerate(tasks)
        ]
        rewards = {
            name: grams.beside[f"{side}_{name}"] for name in TaskForce.reports if f"{side}_{name}" in grams.beside
        }
        reward_rows += [
            {"side": side, **grams.where(n), **{name: value[n] for name, value in rewards.items()}}
            for n in range(len(found.weights))
            if rewards
        ]
        headline += [
            {
                "side": side,
                "task": task,
                "share_mean": float(found.shares[:, k].mean()),
                "share_first": float(found.first[k]),
                "share_last": float(found.smooth[-1, k]),
            }
            for k, task in enumerate(tasks)
        ]
    if request.layer is not None or request.tasks:
        notes.append("the weights are those that training used, for all layers and all tasks together")
    return Product(
        name=request.stem("weights", request.side or "", run_name(dump)),
        draw=lambda: weights_figure(lines, titles, tasks, window),
        rows={"": rows} | ({"-rewards": reward_rows} if reward_rows else {}),
        headline=headline,
        notes=notes,
    )

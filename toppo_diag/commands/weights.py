"""`toppo-diag weights`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toppo_diag.request import Product, Request

Window = Annotated[int, typer.Option(help="Dumped minibatches in the moving average.", min=1)]


def weights(request: Request, *, window: Window = 10) -> Product:
    """Weight dynamics: what share of the weights training gave each task, over the dumped minibatches, as a moving
    average (Figure 5 of TaskForce's appendix); rewards too, where the combiner had them.
    """
    import numpy as np

    from toppo.combiners import TaskForce, make
    from toppo.dump import open_dump
    from toppo_diag.analysis.weights import moving_average, weight_shares
    from toppo_diag.conditions import run_name, sides
    from toppo_diag.plots.style import combiner_label
    from toppo_diag.plots.weights import weights_figure
    from toppo_diag.reading import dropped_note, read_grams

    dump = open_dump(request.one_dump("weights"))
    notes: list[str] = []
    series: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    titles: dict[str, str] = {}
    tasks: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = []
    reward_rows: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    wanted = sides(dump, request)
    recorded = [side for side in wanted if f"{side}_weights" in dump.names]
    if not recorded:
        notes.append(f"{dump.path}: no weights were recorded; the mean's are drawn")
    elif missing := [side for side in wanted if side not in recorded]:
        notes.append(f"{dump.path}: no weights of the {' and '.join(missing)} were recorded")
    # An update phase comes after the steps it learns from: its minibatches are drawn out over those.
    phase = dump.attrs.get("env_steps_per_collect", int(np.diff(dump.env_steps).min(initial=0)))
    for side in recorded or wanted:
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        tasks = grams.tasks
        w = grams.beside[f"{side}_weights"] if recorded else make("mean").solve_many(grams.values).weights
        shares = weight_shares(w)
        smooth = moving_average(shares, window)
        series[side] = (grams.env_steps - phase * (1 - (grams.minibatch + 1) / dump.n_minibatches), smooth)
        spec = dump.attrs.get("combiners", {}).get(side, "unknown combiner") if recorded else "mean"
        titles[side] = combiner_label(spec)
        rows += [
            {
                "side": side,
                **grams.where(n),
                "task": task,
                "weight": w[n, k],
                "share": shares[n, k],
                "moving_average": smooth[n, k],
            }
            for n in range(len(w))
            for k, task in enumerate(tasks)
        ]
        rewards = {
            name: grams.beside[f"{side}_{name}"] for name in TaskForce.reports if f"{side}_{name}" in grams.beside
        }
        reward_rows += [
            {"side": side, **grams.where(n), **{name: value[n] for name, value in rewards.items()}}
            for n in range(len(w))
            if rewards
        ]
        numbers += [
            {
                "side": side,
                "task": task,
                "share_mean": float(shares[:, k].mean()),
                "share_first": float(smooth[min(window, len(smooth)) - 1, k]),
                "share_last": float(smooth[-1, k]),
            }
            for k, task in enumerate(tasks)
        ]
    if request.layer is not None or request.tasks:
        notes.append("weights are those of the whole problem, all layers and tasks")
    return Product(
        name=f"weights-{run_name(dump)}" if request.side is None else f"weights-{request.side}-{run_name(dump)}",
        figure=lambda: weights_figure(series, titles, tasks, window),
        tables={"": rows} | ({"-rewards": reward_rows} if reward_rows else {}),
        numbers=numbers,
        notes=notes,
    )

"""The command `weights`."""

from __future__ import annotations

from typing import Annotated, Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.checking import MOST, Between
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.errors import DiagnosticError
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem


@instrument
def weights(
    dumps: Sources, *, window: Annotated[int, Between(1, MOST)] = 10, **selection: Unpack[Selection]
) -> Product:
    """The share of the combiner's weights that each task got, over training (Figure 5 of the TaskForce paper).

    Draws a moving average over the dumped minibatches. For a combiner that learns from rewards (TaskForce), also makes
    a table of the rewards.

    Args:
        window: dumped minibatches in the moving average.

    Raises:
        DiagnosticError: training recorded no weights.
    """
    from toppo.combiners import TaskForce
    from toppo_diag.analysis.typical import typical
    from toppo_diag.analysis.weights import spread_over_phase, stretches, weight_series
    from toppo_diag.plots.style import combiner_label
    from toppo_diag.plots.weights import weights_figure
    from toppo_diag.reading.conditions import combiner_of, has_weights, run_name, sides, sums_losses
    from toppo_diag.reading.dumps import dropped_note, read_grams

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        notes: list[str] = []
        lines = {}
        titles: dict[str, str] = {}
        tasks: tuple[str, ...] = ()
        rows: list[dict[str, Any]] = []
        reward_rows: list[dict[str, Any]] = []
        headline: list[dict[str, Any]] = []
        wanted = sides(dump, request)
        recorded = [side for side in wanted if has_weights(dump, side)]
        if not recorded:
            names = " and ".join(f"{side}_weights" for side in wanted)
            why = "the step is the sum of the losses" if sums_losses(dump) else f"record them under {names}"
            raise DiagnosticError(f"{dump.path}: no weights were recorded, so there are none to draw; {why}")
        if missing := [side for side in wanted if side not in recorded]:
            notes.append(f"{dump.path}: no weights of the {' and '.join(missing)} were recorded")
        phase = dump.attrs.get("env_steps_per_collect")
        most = 1
        for side in recorded:
            grams = read_grams(dump, side, request)
            notes += dropped_note(dump, side, grams)
            tasks = grams.tasks
            starts = stretches(grams.env_steps, grams.snapshot, phase)
            found = weight_series(grams.beside[f"{side}_weights"], window, starts, grams.known)
            if found.short:
                notes.append(
                    f"{dump.path}: no more minibatches than one window, so the first and the last share are the same"
                )
            place = spread_over_phase(grams.env_steps, grams.minibatch, dump.n_minibatches, dump.steps, phase)
            lines[side] = (place, found.smooth)
            most = max(most, found.window)
            titles[side] = combiner_label(combiner_of(dump, side) or "recorded weights")
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
                    "minibatches": len(found.shares),
                    **typical(found.shares[:, k]).columns("share"),
                    "share_first": float(found.first[k]),
                    "share_last": float(found.smooth[-1, k]),
                }
                for k, task in enumerate(tasks)
            ]
        if request.layer is not None or request.tasks:
            notes.append("the weights are those that training used, for all layers and all tasks together")
        return Product(
            name=stem("weights", request.side or "", run_name(dump)),
            draw=lambda figure=None: weights_figure(lines, titles, tasks, most, axis=dump.step.label, figure=figure),
            rows={"": rows} | ({"-rewards": reward_rows} if reward_rows else {}),
            headline=headline,
            notes=notes,
        )

    return side_by_side("weights", request, one)

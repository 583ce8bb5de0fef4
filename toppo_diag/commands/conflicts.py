"""The command `conflicts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from toppo.dump import Dump
from toppo_diag.commands.command import instrument
from toppo_diag.commands.side_by_side import side_by_side
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, stem

if TYPE_CHECKING:
    from toppo_diag.analysis.conflicts import Heads


@instrument
def conflicts(dumps: Sources, **selection: Unpack[Selection]) -> Product:
    """Which tasks pull against each other, how often, and in which layers.

    Two tasks are in conflict if the cosine of their gradients is negative beyond noise. Noise is estimated from the
    minibatches of one snapshot, or else from the changes between snapshots. Draws the share of pairs in conflict and
    the effective rank over training, and how often each pair is in conflict. If the dump holds Grams of layers or
    gradients, also ranks the layers by the conflict that they bring. The figure is not in the paper.
    """
    from toppo_diag.analysis.conflicts import conflict_series, heads, layer_conflicts
    from toppo_diag.analysis.stages import STAGES
    from toppo_diag.plots.conflicts import conflicts_figure
    from toppo_diag.reading.conditions import rounding, run_name, sides
    from toppo_diag.reading.dumps import dropped_note, read_layers, read_stream, stream_note

    request = Request.of(dumps, **selection)

    def one(dump: Dump) -> Product:
        series, layers = {}, {}
        tasks: tuple[str, ...] = ()
        notes = stream_note(dump)
        over_time: list[dict[str, Any]] = []
        by_pair: list[dict[str, Any]] = []
        by_layer: list[dict[str, Any]] = []
        headline: list[dict[str, Any]] = []
        for side in sides(dump, request):
            grams = read_stream(dump, side, request)
            notes += dropped_note(dump, side, grams)
            tasks = grams.tasks
            s = series[side] = conflict_series(grams.env_steps, grams.values, rounding(dump), grams.known)
            found = s.found
            over_time += [
                {
                    "side": side,
                    grams.step.name: int(step),
                    "conflict_share": s.share[t],
                    "negative_share": s.negative[t],
                    **s.abs_cosine.columns("mean_abs_cosine", t),
                    **s.effective_rank.columns("effective_rank", t),
                }
                for t, step in enumerate(s.env_steps)
            ]
            by_pair += [
                {
                    "side": side,
                    "task": tasks[i],
                    "task_j": tasks[j],
                    "conflict": found.strength[i, j],
                    "conflict_share": found.share[i, j],
                    "mean_cosine": found.cosine[i, j],
                    "noise_band": found.noise[i, j],
                }
                for i, j in s.pairs
            ]
            worst = s.worst
            numbers = {
                "side": side,
                "snapshots": len(s.env_steps),
                "minibatches": len(grams.values),
                "conflict_share": s.mean_share,
                "negative_share": s.mean_negative,
                **s.mean_abs_cosine.columns("mean_abs_cosine"),
                **s.typical_rank.columns("effective_rank"),
                "worst_pair": " and ".join(tasks[i] for i in worst) if worst else "none",
                "worst_pair_conflict": float(found.strength[worst]) if worst else 0.0,
                "worst_pair_share": float(found.share[worst]) if worst else 0.0,
            }
            if not found.noise_known:
                notes.append(
                    f"{dump.path}: {len(grams.values)} Grams of side {side} are too few to tell noise, so signs count; "
                    "record three snapshots, or two minibatches in a snapshot"
                )
            of_layers = read_layers(dump, side, request, STAGES) if request.layer is None else None
            if of_layers is not None:
                ranked = layers[side] = layer_conflicts(of_layers.env_steps, of_layers.values, rounding(dump))
                by_layer += [
                    {
                        "side": side,
                        "rank": n + 1,
                        "layer": layer.name,
                        "conflict": layer.conflict,
                        "norm_share": layer.norm_share,
                        "negative_share": layer.negative,
                        "tasks": len(layer.reached),
                        "only_task": tasks[layer.reached[0]] if len(layer.reached) == 1 else "",
                    }
                    for n, layer in enumerate(ranked)
                ]
                numbers["worst_layer"] = ranked[0].name if ranked[0].conflict > 0 else "none"
                over = f"the layers of side {side} are ranked over {of_layers.n_snapshots} snapshots"
                more = "" if of_layers.all_snapshots or request.chooses_snapshots else "; choose others with `snapshot`"
                notes.append(f"{over}{more}")
                if (single := heads(of_layers.values, ranked)) is not None:
                    notes.append(heads_note(side, single, tasks))
            headline.append(numbers)
        if not any(dump.has_layers(side) for side in dump.sides):
            notes.append(f"{dump.path}: holds no Grams by layer and no slabs, so layers are left out; record either")
        return Product(
            name=stem("conflicts", request.side or "", run_name(dump)),
            draw=lambda figure=None: conflicts_figure(series, layers, tasks, axis=dump.step.label, figure=figure),
            rows={"": over_time, "-pairs": by_pair} | ({"-layers": by_layer} if by_layer else {}),
            headline=headline,
            notes=notes,
        )

    return side_by_side("conflicts", request, one)


def heads_note(side: str, heads: Heads, tasks: Sequence[str]) -> str:
    """What a side hides because some of its layers are reached by one task alone."""
    if heads.nothing_else:
        return f"{side}: one task alone reaches each of its layers, so no two tasks meet in it"
    names = [f"{name} ({tasks[task]})" for task, layers in heads.layers.items() for name in layers]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (
        f"{side}: one task alone reaches {shown}. They hold {100 * heads.norm_share:.0f}% of the squared norm and hide "
        f"how tasks meet: mean |cos| is {heads.with_heads:.2f} with them, {heads.without_heads:.2f} without"
    )

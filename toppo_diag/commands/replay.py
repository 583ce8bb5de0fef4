"""`toppo-diag replay`."""

from __future__ import annotations

from typing import Any

from toppo_diag.commands.options import Combiners
from toppo_diag.request import Product, Request


def replay(request: Request, *, combiners: Combiners = "fairgrad:alpha=1;mean") -> Product:
    """Re-solve every dumped Gram with any combiners (Section D.2): weights, contributions, progress g_i'd, cosine to
    each task, worst-task progress, agreement with what training used. FairGrad is solved to rounding.
    """
    import numpy as np

    from toppo.combiners import Combiner
    from toppo.dump import open_dump
    from toppo_diag.analysis.replay import Replay, relative_distance
    from toppo_diag.analysis.replay import replay as again
    from toppo_diag.commands.options import chosen_combiners
    from toppo_diag.conditions import default_side, gradient_scale, run_name
    from toppo_diag.plots.replay import replay_figure
    from toppo_diag.reading import dropped_note, read_grams

    dump = open_dump(request.one_dump("replay"))
    side = request.side or default_side(dump)
    grams = read_grams(dump, side, request)
    notes = dropped_note(dump, side, grams)
    # Combiners see c_v g_i on the critic, as in training; what comes out is in the unit of the scaled gradients.
    scale = gradient_scale(dump, side)
    seen = scale**2 * grams.values
    whole = not request.tasks and request.layer is None
    used = grams.beside.get(f"{side}_weights") if whole else None
    if used is None:
        why = "was not recorded" if whole else "is of all tasks and layers"
        notes.append(f"{dump.path}: what training used on the {side} {why}; agreement is left out")

    def losses(combiner: Combiner) -> np.ndarray | None:
        return grams.beside.get(f"loss_{side}", grams.beside.get("loss")) if combiner.needs_losses else None

    found: dict[str, Replay] = {}
    for spec, combiner in chosen_combiners(combiners).items():
        if combiner.needs_losses and losses(combiner) is None:
            notes.append(f"{dump.path}: {spec} needs losses, and no loss_{side} was recorded; left out")
            continue
        orders = None
        if combiner.needs_order:
            orders = _orders(combiner, grams, f"{side}_order" if whole else None)
            if f"{side}_order" not in grams.beside or not whole:
                notes.append(f"{spec}: orders are drawn anew (seed 0); training's were not recorded for this")
        if combiner.state_names:
            notes.append(f"{spec} carries state: it starts afresh, and sees the dumped minibatches alone")
        try:
            found[spec] = again(combiner, seen, losses(combiner), orders)
        except ValueError as error:
            notes.append(f"{spec}: {error}; left out")
    rows: list[dict[str, Any]] = []
    steps_rows: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    for spec, r in found.items():
        apart = np.full(len(seen), np.nan) if used is None else relative_distance(seen, r.weights, used)
        for n in range(len(seen)):
            where = {"combiner": spec, **grams.where(n)}
            rows += [
                {
                    **where,
                    "task": task,
                    "weight": r.weights[n, k],
                    "contribution": r.contributions[n, k],
                    "progress": r.progress[n, k],
                    "cosine": r.cosine[n, k],
                }
                for k, task in enumerate(grams.tasks)
            ]
            steps_rows.append(
                {
                    **where,
                    "norm": r.norm[n],
                    "worst_progress": r.worst_progress[n],
                    "worst_cosine": r.worst_cosine[n],
                    "spread": r.spread[n],
                    "top_1_mass": r.top_1[n],
                    "residual": r.residual[n],
                    "status": int(r.status[n]),
                    "distance_to_training": apart[n],
                }
            )
        numbers.append(
            {
                "combiner": spec,
                "norm": float(np.median(r.norm)),
                "spread": float(np.median(r.spread)),
                "top_1_mass": float(np.median(r.top_1)),
                "worst_progress": float(np.median(r.worst_progress)),
                "worst_cosine": _median(r.worst_cosine),
                "distance_to_training": _median(apart),
                "worst_distance": float(np.max(apart)),
            }
        )
    trained = dump.attrs.get("combiners", {}).get(side)
    if trained:
        notes.append(f"training used {trained} on the {side}")
    names = list(found)
    middle = np.array([[_median(r.cosine[:, k]) for k in range(len(grams.tasks))] for r in found.values()])
    return Product(
        name=f"replay-{side}-{run_name(dump)}",
        figure=lambda: replay_figure(names, grams.tasks, middle, [r.worst_cosine for r in found.values()], side),
        tables={"": rows, "-steps": steps_rows},
        numbers=numbers,
        notes=notes,
    )


def _orders(combiner: Any, grams: Any, recorded: str | None) -> Any:
    """The orders training drew, or new ones where there are none."""
    import numpy as np

    if recorded in grams.beside:
        return grams.beside[recorded]
    rng = np.random.default_rng(0)
    return np.stack([combiner.draw_order(rng, len(grams.tasks)) for _ in grams.values])


def _median(values: Any) -> float:
    """Median of the finite ones; NaN where there is none."""
    import numpy as np

    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")

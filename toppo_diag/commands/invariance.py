"""`toppo-diag invariance`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toppo_diag.commands.options import Combiners
from toppo_diag.request import Product, Request

Tol = Annotated[float, typer.Option(help="Largest relative distance, and norm error, that passes.", min=0.0)]

TIGHT = "fairgrad:alpha=1"
"""The replay of Section D.2, eta = 1e-13 there; here solved to rounding."""
PRODUCTION = "fairgrad-paper"
"""Algorithm C.2 at its production tolerance, eta = 1e-2: reported, not held to anything."""


def invariance(request: Request, *, tol: Tol = 1e-12, combiners: Combiners = "all") -> Product:
    """Theorem 1 and Corollary 1 (Figure D.5): scaling sweeps of every combiner on Gaussian gradients, and on every
    dumped minibatch FairGrad's norm identity and raw against PopArt-rescaled gradients. Exit code 1 beyond --tol.
    """
    from dataclasses import replace

    import numpy as np

    from toppo.combiners import make
    from toppo.dump import open_dump
    from toppo_diag.analysis.invariance import (
        FACTORS,
        SIGMAS,
        gaussian_gram,
        lognormal_perturbation,
        realised,
        single_task_sweep,
    )
    from toppo_diag.commands.options import chosen_combiners
    from toppo_diag.conditions import default_side, gradient_scale, has_popart, raw, run_name
    from toppo_diag.plots.invariance import invariance_figure
    from toppo_diag.reading import dropped_note, read_grams

    gram = gaussian_gram(10)
    chosen = chosen_combiners(combiners)
    sweeps = {spec: single_task_sweep(c, gram) for spec, c in chosen.items()}
    perturbations = {spec: lognormal_perturbation(c, gram) for spec, c in chosen.items()}
    synthetic: list[dict[str, Any]] = []
    for spec in chosen:
        s, p = sweeps[spec], perturbations[spec]
        where = {"combiner": spec}
        synthetic += [
            {**where, "scaling": "one task", "size": c, "cosine": s.cosine[n], "distance": s.distance[n]}
            for n, c in enumerate(FACTORS.tolist())
        ]
        synthetic += [
            {**where, "scaling": "lognormal", "size": x, "cosine": p.median[n], "low": p.low[n], "high": p.high[n]}
            for n, x in enumerate(SIGMAS.tolist())
        ]
    columns = ("combiner", "scaling", "size", "cosine", "distance", "low", "high")
    synthetic = [{c: row.get(c, "") for c in columns} for row in synthetic]

    notes: list[str] = []
    minibatches: list[dict[str, Any]] = []
    for path in request.dumps:
        dump = open_dump(path)
        side = request.side or default_side(dump)
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        popart = side == "critic" and has_popart(dump)
        if not popart:
            notes.append(f"{dump.path}: no PopArt on the {side}; only the norm identity is checked there")
        # In the trainer's units, c_v g_i on the critic: the production tolerance is absolute.
        grams = replace(grams, values=gradient_scale(dump, side) ** 2 * grams.values)
        source = raw(grams) if popart else grams
        sigma = grams.beside["popart_sigma"] if popart else np.ones(grams.values.shape[:2])
        for spec in (TIGHT, PRODUCTION):
            combiner = make(spec)
            for n, g in enumerate(source.values):
                r = realised(combiner, g, sigma[n])
                minibatches.append(
                    {
                        "run": run_name(dump),
                        "side": side,
                        "combiner": spec,
                        **grams.where(n),
                        "distance": r.distance if popart else float("nan"),
                        "norm_error": r.norm_error,
                        "solved": r.solved,
                    }
                )
    numbers, failures = [], []
    drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for spec in (TIGHT, PRODUCTION):
        rows = [row for row in minibatches if row["combiner"] == spec]
        held = [row for row in rows if row["solved"]]
        if spec == TIGHT and len(held) < len(rows):
            n = len(rows) - len(held)
            notes.append(f"{n} minibatches have a singular Gram, which Theorem 1 leaves out; see the table")
        for quantity in ("distance", "norm_error"):
            values = np.array([row[quantity] for row in held], dtype=float)
            finite = np.flatnonzero(np.isfinite(values))
            if not finite.size:
                continue
            worst = held[int(finite[values[finite].argmax()])]
            at = f"{worst['run']}, {worst['side']}, snapshot {worst['snapshot']}, minibatch {worst['minibatch']}"
            passed = bool(worst[quantity] <= tol)
            numbers.append(
                {
                    "combiner": spec,
                    "quantity": quantity,
                    "minibatches": len(finite),
                    "median": float(np.median(values[finite])),
                    "worst": float(worst[quantity]),
                    "worst_at": at,
                    "passed": passed if spec == TIGHT else "reported",
                }
            )
            if spec == TIGHT and not passed:
                failures.append(f"{quantity} {worst[quantity]:.2e} exceeds --tol {tol:g} at {at}")
        if any(np.isfinite(row["distance"]) for row in held):
            drawn[spec] = (
                np.array([row["env_steps"] for row in held]),
                np.array([row["distance"] for row in held]),
            )
    if TIGHT in sweeps:
        worst_sweep = float(sweeps[TIGHT].distance.max())
        numbers.append(
            {
                "combiner": TIGHT,
                "quantity": "distance, one task scaled",
                "minibatches": len(FACTORS),
                "median": float(np.median(sweeps[TIGHT].distance)),
                "worst": worst_sweep,
                "worst_at": f"c = {FACTORS[sweeps[TIGHT].distance.argmax()]:.3g}",
                "passed": worst_sweep <= tol,
            }
        )
        if worst_sweep > tol:
            failures.append(f"distance {worst_sweep:.2e} of the single-task sweep exceeds --tol {tol:g}")
    return Product(
        name="invariance" + (f"-{run_name(open_dump(request.dumps[0]))}" if len(request.dumps) == 1 else ""),
        figure=lambda: invariance_figure(sweeps, perturbations, drawn, tol),
        tables={"": synthetic, "-minibatches": minibatches},
        numbers=numbers,
        notes=list(dict.fromkeys(notes)),
        failures=failures,
    )

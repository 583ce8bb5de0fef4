"""The command `invariance`."""

from __future__ import annotations

from typing import Annotated, Any, Unpack

from toppo_diag.commands.checking import Between
from toppo_diag.commands.command import instrument
from toppo_diag.product import Product
from toppo_diag.request import Request, Selection, Sources, Texts, stem


@instrument
def invariance(
    dumps: Sources,
    *,
    tol: Annotated[float, Between(0, 1)] = 1e-12,
    combiners: Texts = "all",
    **selection: Unpack[Selection],
) -> Product:
    """Check Theorem 1 and Corollary 1: rescaling a task's gradient does not change FairGrad's step (Figure D.5).

    Rescales Gaussian gradients under every combiner. On every dumped minibatch, checks the norm of FairGrad's step, and
    compares its steps with and without PopArt. Fails if a number exceeds the tolerance.

    Args:
        tol: the largest relative distance, and norm error, that passes.
        combiners: combiners with their options, separated by commas; or all.
    """
    from toppo_diag.analysis.invariance import judge, realised_rows, synthetic
    from toppo_diag.commands.options import chosen_combiners
    from toppo_diag.plots.invariance import invariance_figure
    from toppo_diag.reading.conditions import (
        as_combined,
        chosen_side,
        has_popart,
        of_trainer,
        raw,
        run_names,
        told_apart,
    )
    from toppo_diag.reading.dumps import dropped_note, read_grams
    from toppo_diag.reading.progress import tracked

    request = Request.of(dumps, **selection)
    opened = request.open_all()  # first: a wrong path should not wait for the Gaussians
    on_gaussians = synthetic(tracked("combiners on Gaussians", list(chosen_combiners(combiners).items())))
    notes: list[str] = []
    minibatches: list[dict[str, Any]] = []
    for dump, name in zip(opened, told_apart(opened), strict=True):
        side, of_side = chosen_side(dump, request)
        notes += of_side
        grams = read_grams(dump, side, request)
        notes += dropped_note(dump, side, grams)
        grams = grams.some_known()
        popart = side == "critic" and has_popart(dump)
        if not popart and of_trainer(dump):
            notes.append(f"{dump.path}: no PopArt on the {side}, so only the norm of FairGrad's step is checked")
        # In the combiner's units: the paper's solver has an absolute tolerance.
        grams = as_combined(dump, side, grams)
        source = raw(grams) if popart else grams
        sigma = grams.beside["popart_sigma"] if popart else None
        where = [{"run": name, "side": side, **grams.where(n)} for n in range(len(grams.values))]
        minibatches += realised_rows(source.values, sigma, tracked(f"minibatches of {dump.path}", where))
    verdict = judge(minibatches, on_gaussians.sweeps, tol)
    if verdict.singular:
        notes.append(
            f"{verdict.singular} minibatches have a singular Gram, which Theorem 1 does not cover; the table marks them"
        )
    return Product(
        name=stem("invariance", request.side or "", run_names(opened)),
        draw=lambda: invariance_figure(on_gaussians.sweeps, on_gaussians.perturbations, verdict.drawn, tol),
        rows={"": on_gaussians.rows(), "-minibatches": minibatches},
        headline=verdict.headline,
        notes=list(dict.fromkeys(notes)),
        failures=verdict.failures,
    )

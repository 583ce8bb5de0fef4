"""A combiner at work on one side, and what a dump keeps of it so that a replay is exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toppo.combiners import Combination, Combiner, Record, Status
from toppo.dump import ScalarSpec


def combination_specs(side: str, combiner: Combiner) -> dict[str, ScalarSpec]:
    """The minibatch scalars that `combination_scalars` fills.

    Args:
        side: name of a group of parameters.
        combiner: what decides the direction of the side.
    """
    specs = {
        f"{side}_weights": ScalarSpec(("task",), "f8", "1", "combiner weights w on gradient_scale * g_i"),
        f"{side}_residual": ScalarSpec((), "f8", "1", "residual of the combiner's own equation"),
        f"{side}_iterations": ScalarSpec((), "i8", "1", "iterations of the combiner"),
        f"{side}_status": ScalarSpec((), "i8", "1", "toppo.combiners.Status"),
        f"{side}_ridge": ScalarSpec((), "f8", "1", "ridge on the correlation matrix"),
    }
    specs |= {f"{side}_{name}": ScalarSpec((), "f8", "1", meaning) for name, meaning in combiner.reports.items()}
    if combiner.needs_order:
        specs[f"{side}_order"] = ScalarSpec(("task", "other"), "i8", "1", "random order handed to the combiner")
    return specs


def combination_scalars(side: str, combination: Combination, order: np.ndarray | None) -> dict[str, Any]:
    """What one call of a combiner leaves in the dump, by name.

    Args:
        side: name of a group of parameters.
        combination: what the combiner returned.
        order: what `draw_order` drew for the call; None for most methods.
    """
    record = combination.record
    scalars: dict[str, Any] = {
        f"{side}_weights": combination.weights,
        f"{side}_residual": record.residual,
        f"{side}_iterations": record.iterations,
        f"{side}_status": int(record.status),
        f"{side}_ridge": record.ridge,
    }
    scalars |= {f"{side}_{name}": value for name, value in combination.reports.items()}
    if order is not None:
        scalars[f"{side}_order"] = order
    return scalars


def unsolved_scalars(side: str, combiner: Combiner, order: np.ndarray | None, n_tasks: int) -> dict[str, Any]:
    """What a call leaves in the dump when the Gram was not finite, so that the step was the sum of the gradients.

    Args:
        side: name of a group of parameters.
        combiner: what was not asked.
        order: see `combination_scalars`.
        n_tasks: K.
    """
    record = Record(residual=math.nan, status=Status.NOT_CONVERGED, ridge=math.nan)
    reports = dict.fromkeys(combiner.reports, math.nan)
    return combination_scalars(side, Combination(np.ones(n_tasks), record, reports), order)

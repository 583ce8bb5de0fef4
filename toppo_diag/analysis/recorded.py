"""What a run recorded, in the form that the report's analyses take. `toppo_diag.reading.recorded` fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class LayerGrams:
    """Grams of single layers.

    Attributes:
        names: of the L layers.
        steps: of each minibatch, (N,).
        values: G of the columns of each layer, (N, L, K, K).
    """

    names: tuple[str, ...]
    steps: Int[np.ndarray, "N"]
    values: Float[np.ndarray, "N L K K"]


@dataclass(frozen=True)
class SideRecord:
    """The Grams of one side, and what was recorded with them.

    Attributes:
        steps: steps of each Gram, (N,).
        gram: G of every streamed minibatch; of the dumped ones where there is no stream, (N, K, K).
        dropped: how many of these were left out because they were not finite.
        present: whether each task is known in each of these, (N, K): it took part, and its gradient is finite. The Gram
            of another task is 0 here.
        at: steps of each dumped minibatch, (M,).
        there: whether each task is known in each dumped minibatch, (M, K).
        dumped: G of the dumped minibatches in the units in which the combiner saw them, (M, K, K).
        scale: the factor on each g_i between `gram` and `dumped`, such as c_v of the critic.
        weights: w of training for each dumped minibatch, (M, K); NaN where not recorded; None if never recorded.
        spec: the combiner of training; None if not known.
        status: `toppo.combiners.Status` of each dumped minibatch, (M,); NaN where not recorded; None if never recorded.
        sigma: PopArt's sigma_i at each dumped minibatch, (M, K); None where PopArt does not touch the side.
        finite: whether each g_i of each dumped minibatch is finite, those of `dropped` included, (F, K). An absent task
            counts as finite. Before the first snapshot, the same of the streamed minibatches.
        finite_at: steps of these, (F,).
        per_task: further numbers for each task and dumped minibatch, by name, (M, K).
        single: further numbers for each dumped minibatch, by name, (M,).
        layers: Grams of the layers; None where the run has none.
    """

    steps: Int[np.ndarray, "N"]
    gram: Float[np.ndarray, "N K K"]
    dropped: int
    present: Bool[np.ndarray, "N K"]
    at: Int[np.ndarray, "M"]
    dumped: Float[np.ndarray, "M K K"]
    there: Bool[np.ndarray, "M K"]
    scale: float
    weights: Float[np.ndarray, "M K"] | None
    spec: str | None
    status: Float[np.ndarray, "M"] | None
    sigma: Float[np.ndarray, "M K"] | None
    finite: Float[np.ndarray, "F K"]
    finite_at: Int[np.ndarray, "F"]
    per_task: Mapping[str, Float[np.ndarray, "M K"]] = field(default_factory=dict)
    single: Mapping[str, Float[np.ndarray, "M"]] = field(default_factory=dict)
    layers: LayerGrams | None = None


@dataclass(frozen=True)
class Curve:
    """One number for each task over training, such as success.

    Attributes:
        name: what it is.
        units: its unit.
        steps: (T,).
        values: (T, K); NaN where unknown.
    """

    name: str
    units: str
    steps: Int[np.ndarray, "T"]
    values: Float[np.ndarray, "T K"]


@dataclass(frozen=True)
class RunRecord:
    """What one run recorded.

    Attributes:
        name: of the run.
        path: where it was read.
        tasks: K names.
        step_label: what the steps are, in the words of the run.
        step_name: the same as the column of a table.
        sides: by name. A side without a minibatch yet is left out. One whose Grams are all not finite has none here.
        curves: success, return and losses, as far as recorded.
        facts: what the run is, name to text, such as its combiners and its seed.
        group: runs with the same text have the same settings and differ only in their seed.
        complete: whether the run has ended.
        missing: what is not there and how to record it, one line each.
    """

    name: str
    path: str
    tasks: tuple[str, ...]
    step_label: str
    step_name: str
    sides: Mapping[str, SideRecord]
    curves: tuple[Curve, ...]
    facts: Mapping[str, str]
    group: str
    complete: bool
    missing: tuple[str, ...]

    @property
    def success(self) -> Curve | None:
        """The success or accuracy of each task: of evaluations if there are any, else of training."""
        return next((curve for curve in self.curves if curve.name.startswith(("success", "accuracy"))), None)

"""The thresholds of the findings: one table, with the source of each. A user can set each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toppo.combiners.scalars import STARVED
from toppo.common.errors import unknown
from toppo_diag.errors import bad_option


@dataclass(frozen=True)
class Threshold:
    """One threshold.

    Attributes:
        name: how a user sets it.
        value: the default.
        least, most: what it may be set to.
        above: whether a number above it is a finding; otherwise one below it is.
        quantity: what is compared with it.
        source: where the default comes from.
        scale: a sentence about how a value is compared, where it is not compared as it is.
    """

    name: str
    value: float
    least: float
    most: float
    above: bool
    quantity: str
    source: str
    scale: str = ""


FROM_EVEN = "A value m is compared as (m - 1 / K) / (1 - 1 / K)"
"""The scale of `toppo_diag.analysis.evenness`."""

_TABLE = (
    Threshold(
        *("spread", 100.0, 1.0, math.inf, True, "largest over smallest gradient norm of the live tasks"),
        "between the 4.1 of the actor and the 497 of the critic (TOPPO, Figure 2)",
    ),
    Threshold(
        *("evened", 10.0, 1.0, math.inf, False, "largest over smallest contribution ||w_i g_i|| of the live tasks"),
        "between the 1.9 of FairGrad and the 129 of a plain mean (TOPPO, Figure D.4)",
    ),
    Threshold(
        *(
            "starved",
            STARVED,
            -math.inf,
            1.0,
            False,
            "share of the direction, in units of an equal share 1 / K of the K tasks that are present",
        ),
        "a tenth of an equal share (our choice)",
    ),
    Threshold(
        *("success_gain", 0.05, 0.0, 1.0, False, "gain in success since the task is starved"),
        "the noise of 50 evaluation episodes (our choice)",
    ),
    Threshold(
        *("return_gain", 0.1, 0.0, 1.0, False, "relative gain in return while starved, if no success is known"),
        "our choice",
    ),
    Threshold(
        *("loss_drop", 0.1, 0.0, 1.0, False, "relative drop of the loss while starved, if neither is known"),
        "our choice",
    ),
    Threshold(
        *("top_1", 0.45, 0.0, 1.0, True, "largest contribution over the sum of all (top-1 mass)"),
        "top-1 masses are 0.45 to 0.57 without FairGrad and 0.14 with it. On this scale they are 0.39 to 0.52 and 0.04 "
        "(TOPPO, Section D.3)",
        FROM_EVEN,
    ),
    Threshold(
        *("conflict", -0.2, -1.0, 0.0, False, "cosine of a pair of tasks"),
        "the two undo a fifth of each other (our choice)",
    ),
    Threshold(
        *("cosine", 0.25, 0.0, 1.0, True, "mean |cos| over the pairs of live tasks"),
        "0.24 without LayerNorm on the critic, 0.10 with it (TOPPO, Figure D.3)",
    ),
    Threshold(
        *("rank", 0.45, 0.0, 1.0, False, "effective rank over the number of live tasks"),
        "half the directions that ten tasks could span (our choice)",
        FROM_EVEN,
    ),
    Threshold(
        *("dead", 0.5, 0.0, 1.0, True, "share of minibatches in which a task has no gradient"),
        "more often dead than alive (our choice)",
    ),
    Threshold(
        *("not_finite", 0.0, 0.0, 1.0, True, "share of the dumped minibatches in which a task is not finite"),
        "a sound run has none",
    ),
    Threshold(
        *("clipped", 0.8, 0.0, 1.0, True, "share of a task's samples whose gradient PPO's clip removes"),
        "a fifth of the samples is left (our choice)",
    ),
    Threshold(
        *("clip_factor", 0.1, 0.0, 1.0, False, "factor by which the clip of the gradient norm shortens the step"),
        "a tenth of the step is left (our choice)",
    ),
    Threshold(
        *("solver", 0.05, 0.0, 1.0, True, "share of minibatches that the combiner did not solve"),
        "one minibatch in twenty (our choice)",
    ),
    Threshold(
        *("popart", 1.0, 0.0, math.inf, True, "value loss of a task in PopArt's units"),
        "predicting the mean mu_i has a loss of 1 where sigma_i is right (TOPPO, Equation 2)",
    ),
)

THRESHOLDS = {threshold.name: threshold for threshold in _TABLE}
"""Every threshold, by name."""

Thresholds = Mapping[str, float]
"""The value of every threshold, by name."""


def thresholds_of(given: Sequence[str] = ()) -> dict[str, float]:
    """The value of every threshold.

    Args:
        given: those that a user sets, each as "name=value".

    Raises:
        UsageError: no such threshold, or a value that it cannot have.
    """
    values = {name: threshold.value for name, threshold in THRESHOLDS.items()}
    for item in given:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise bad_option("threshold", item, "give NAME=NUMBER, such as spread=100")
        if name not in THRESHOLDS:
            raise unknown("threshold", name, list(THRESHOLDS))
        threshold = THRESHOLDS[name]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not threshold.least <= value <= threshold.most:
            bounds = f"from {threshold.least:g} to {threshold.most:g}"
            raise bad_option("threshold", item, f"{name} is a number {bounds}")
        values[name] = value
    return values

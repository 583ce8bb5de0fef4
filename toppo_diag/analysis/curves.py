"""Success over training and for each task, as in Figures 1, 4 and D.6 to D.10.

Success rates are in percent here, like the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.dump import worst_k
from toppo_diag.analysis.measures import WORST
from toppo_diag.analysis.parameters import parameter_count
from toppo_diag.analysis.published import PAPER, Published, PublishedRow
from toppo_diag.analysis.runs import RUNGS, Aligned
from toppo_diag.analysis.success import bootstrap_interval, iqm, sem, std, step_first_reached, step_reached

BANDS = ("std", "sem", "iqm", "iqm-std")
TAIL = 10
"""k in Figure 4b, the mean over the k worst tasks."""


@dataclass(frozen=True)
class Band:
    """A statistic over seeds and its spread, in percent.

    Attributes:
        centre: the mean, or the IQM.
        low: lower edge; NaN for one seed.
        high: upper edge; NaN for one seed.
    """

    centre: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def band(success: Float[np.ndarray, "... n"], kind: str) -> Band:
    """A statistic over the seeds and its spread, from one success rate per seed.

    Args:
        success: 0 to 1, seeds on the last axis.
        kind: "std" or "sem": the mean, minus and plus this number. "iqm": the interquartile mean (IQM) and its 95%
            bootstrap interval. "iqm-std": the IQM, minus and plus the standard deviation over all seeds (Figure D.7).
    """
    values = 100 * success
    if kind == "iqm":
        return Band(iqm(values), *bootstrap_interval(values))
    centre = iqm(values) if is_iqm(kind) else values.mean(axis=-1)
    spread = sem(values) if kind == "sem" else std(values)
    return Band(centre, centre - spread, centre + spread)


def is_iqm(kind: str) -> bool:
    """Whether the line of a band is an interquartile mean rather than a mean."""
    return kind.startswith("iqm")


def worst_ks(n_tasks: int) -> tuple[int, ...]:
    """The k of Table 2 that are below the number of tasks, and then this number."""
    return (*(k for k in WORST if k < n_tasks), n_tasks)


def worst_bands(runs: Aligned, kind: str) -> dict[int, Band]:
    """Success of the k worst tasks of each seed at the last evaluation, by k (Table 2, Figure 1b)."""
    return {k: band(worst_k(runs.success[-1], k), kind) for k in worst_ks(len(runs.tasks))}


def headline(groups: Sequence[Aligned]) -> Aligned:
    """The group of TOPPO itself; the last group where there is none."""
    return next((group for group in groups if group.label == RUNGS[-1]), groups[-1])


def worst_first(groups: Sequence[Aligned]) -> list[int]:
    """Indices of the tasks in the order of Tables D.5 to D.7: the task that TOPPO solves least comes first."""
    final = headline(groups).success[-1].mean(axis=0)
    return [int(i) for i in np.argsort(final, kind="stable")]


def baselines(published: Published, benchmark: str, reward: str, n_tasks: int) -> dict[str, PublishedRow]:
    """Published success of other methods over all tasks at their full budget, by name of the method, best first.

    These are means (Table 2) or, under V1 rewards, interquartile means (Table 3).
    """
    found = [
        row
        for row in _of_others(published, benchmark, reward)
        if (row.metric in ("final", "iqm") and not row.task) or (row.metric, row.k) == ("worst_k", n_tasks)
    ]
    return {row.method: row for row in sorted(found, key=level, reverse=True)}


def best_worst_k(published: Published, benchmark: str, reward: str, n_tasks: int) -> dict[int, PublishedRow]:
    """The best published mean over the k worst tasks, by k (Table 2). At k = K it is the success over all tasks."""
    best: dict[int, PublishedRow] = {}
    for row in _of_others(published, benchmark, reward):
        k = n_tasks if row.metric == "final" and not row.task else row.k if row.metric == "worst_k" else None
        if k is not None and (k not in best or level(row) > level(best[k])):
            best[k] = row
    return best


def ars_family(published: Published, benchmark: str, reward: str, n_tasks: int) -> dict[str, dict[int, Band]]:
    """The published success of the ARS variants over the k worst tasks, by method and k (Figure 1b).

    A band is the published standard deviation. A k that is not published has no entry.
    """
    found: dict[str, dict[int, Band]] = {}
    for row in _of_others(published, benchmark, reward):
        k = n_tasks if row.metric == "final" and not row.task else row.k if row.metric == "worst_k" else None
        if k is not None and row.method.startswith("ARS"):
            value, spread = np.array(level(row)), np.nan if row.std is None else row.std
            found.setdefault(row.method, {})[k] = Band(value, value - spread, value + spread)
    return found


def heavier(published: Published, groups: Sequence[Aligned]) -> set[str]:
    """The published methods with more parameters than any of our runs (the asterisks of Figures 1 and D.6).

    A method whose parameters are not published is not among them; see `uncounted`.
    """
    ours = max(parameter_count(group.config, len(group.tasks)) for group in groups) / 1e3
    counts = [row for row in _of_others(published, *groups[0].setting) if row.metric == "parameters"]
    return {row.method for row in counts if level(row) > ours}


def uncounted(published: Published, shown: Iterable[str], benchmark: str, reward: str) -> list[str]:
    """Those of some published methods whose parameters are not published for this benchmark, so that none has a mark.

    Args:
        published: the paper's numbers.
        shown: names of methods.
        benchmark: such as MT10.
        reward: v1 or v2.
    """
    counted = {row.method for row in _of_others(published, benchmark, reward) if row.metric == "parameters"}
    return [method for method in shown if method not in counted]


def _of_others(published: Published, benchmark: str, reward: str) -> list[PublishedRow]:
    """Numbers of other methods in Tables 2 and 3."""
    return [
        row
        for table in ("2", "3")
        for row in published.of(table)
        if row.source != PAPER and (row.benchmark, row.reward) == (benchmark, reward) and row.value is not None
    ]


def level(row: PublishedRow) -> float:
    """The value of a published number, in percent."""
    assert row.value is not None  # `_of_others` drops rows without a value
    return row.value


def reached(runs: Aligned, kind: str, levels: Mapping[str, PublishedRow]) -> dict[str, tuple[int | None, int | None]]:
    """Environment steps at which a curve gets to each published number (Section 5.2).

    Returns:
        By method, the steps at which it is first at or above the number, and those from which it stays there. The first
        is None where it never gets there, the second where it ends below.
    """
    curve = band(runs.curves, kind).centre
    return {
        method: (
            step_first_reached(runs.env_steps, curve, level(row)),
            step_reached(runs.env_steps, curve, level(row)),
        )
        for method, row in levels.items()
    }


def spread_out(heights: Float[np.ndarray, "N"], gap: float, low: float, high: float) -> Float[np.ndarray, "N"]:
    """Places for the labels of points on a line, at least `gap` apart and in the order of the points.

    The places are as near to the points as possible, in least squares. They lie between `low` and `high` where they
    fit.

    Args:
        heights: of the points, in any order.
        gap: least distance of two labels.
        low: lower bound.
        high: upper bound.
    """
    order = np.argsort(heights, kind="stable")
    # Without the gaps below each label, the places must not decrease. This is isotonic regression: pool neighbours.
    pools: list[list[float]] = []  # mean and number of labels that touch
    for i, height in enumerate(heights[order]):
        pools.append([float(height) - i * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, n = pools.pop()
            below, m = pools[-1]
            pools[-1] = [(below * m + mean * n) / (m + n), m + n]
    placed = np.concatenate([np.full(int(n), mean) for mean, n in pools]) if pools else np.empty(0)
    top = max(low, high - (len(heights) - 1) * gap)
    made = np.empty(len(heights))
    made[order] = np.clip(placed, low, top) + gap * np.arange(len(heights))
    return made

"""The numbers of the paper's tables that our runs also give. The names are those of `analysis.published`.

Runs of one label have the same settings and differ only in their seed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from toppo.dump import worst_k
from toppo_diag.analysis.parameters import parameter_count
from toppo_diag.analysis.published import PAPER, Published, PublishedRow
from toppo_diag.analysis.runs import Aligned
from toppo_diag.analysis.success import (
    AGGREGATORS,
    best_checkpoint_steps,
    iqm,
    step_distribution,
    step_first_reached,
    step_reached,
    summarise,
)

WORST = (5, 10, 20, 30, 40, 50)
"""k of Tables 2 and D.4."""
HEADLINE = "TOPPO"
PERCENT = "%"
POINTS = "pp"
STEPS = "M env steps"
THOUSAND = "thousand"
FIRST = "_first"
"""End of the metric of a step at which a level is reached, but not for good."""

_POPART = {
    "PopArt without FG-c": ("+ LN-c", "+ LN-c + PopArt"),
    "PopArt with FG-c": ("+ LN-c + FG-c", "+ LN-c + PopArt + FG-c"),
}
"""The differences under Tables D.1 and D.3: the second method minus the first."""


@dataclass(frozen=True)
class Measure:
    """One number that our runs give.

    Attributes:
        label: label of the runs; for a difference, what differs.
        method: the paper's name of the method. For steps to match, the baseline that the runs match.
        benchmark, reward, metric, unit, k, task: as in `PublishedRow`. step_to_match is the step from which the runs
            stay at or above a baseline, and step_to_match_first the one at which they first get there.
        value: the number, over all seeds, in `unit`.
        n: number of seeds.
        env_steps: environment steps at the last evaluation that counts.
        std: sample standard deviation over the seeds; None for one seed, or where it makes no sense.
        sem: standard error of the mean, std / sqrt(n); None like `std`.
        low: for an interquartile mean (IQM), the lower end of its 95% bootstrap interval; None for other metrics.
        high: the upper end of this interval.
    """

    label: str
    method: str
    benchmark: str
    reward: str
    metric: str
    value: float
    n: int
    env_steps: int
    unit: str
    k: int | None = None
    task: str = ""
    std: float | None = None
    sem: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Where the number stands in the paper's tables: method, benchmark, reward, metric, k and task.

        The paper does not say which of the two steps to match it gives, so both stand in the same place.
        """
        return self.method, self.benchmark, self.reward, self.metric.removesuffix(FIRST), self.k, self.task

    @property
    def of_baseline(self) -> bool:
        """Whether the number is about a baseline that the runs match."""
        return self.metric.removesuffix(FIRST) == "step_to_match"


def measures(runs: Aligned, published: Published) -> list[Measure]:
    """All numbers that runs of one label give.

    - Success under each way to choose a checkpoint (Table D.10).
    - At the last checkpoint, the mean over the k worst tasks, the interquartile mean, and the success of each task.
    - The steps at which the seeds were best, and the number of parameters.
    - For TOPPO, the steps at which it matches the baselines of Table 3.

    Args:
        runs: runs of one label.
        published: the paper's numbers, with those of the baselines.
    """
    curves = runs.curves
    found = [_success(runs, metric, aggregate(runs.env_steps, curves)) for metric, aggregate in AGGREGATORS.items()]
    found.append(_success(runs, "iqm", curves[-1]))
    last = runs.success[-1]
    found += [_success(runs, "worst_k", worst_k(last, k), k=k) for k in WORST if k <= len(runs.tasks)]
    found += [_success(runs, "final", last[:, i], task=task) for i, task in enumerate(runs.tasks)]
    best = step_distribution(best_checkpoint_steps(runs.env_steps, curves))
    steps = {
        "budget": float(runs.env_steps[-1]),
        "best_step_median": best.median,
        "best_step_q25": best.q25,
        "best_step_q75": best.q75,
        "best_step_min": best.least,
        "best_step_max": best.most,
    }
    found += [_plain(runs, metric, step / 1e6, STEPS) for metric, step in steps.items()]
    found.append(_plain(runs, "parameters", parameter_count(runs.config, len(runs.tasks)) / 1e3, THOUSAND))
    return found + (_steps_to_match(runs, published.of("3")) if runs.label == HEADLINE else [])


def _steps_to_match(runs: Aligned, rows: Sequence[PublishedRow]) -> list[Measure]:
    """Steps at which the interquartile mean reaches that of each baseline, for good and for the first time (Table 3).

    Only baselines on the same benchmark and reward count. A baseline that is not reached has no entry.
    """
    curve = 100 * iqm(runs.curves)
    levels = {
        row.method: row.value
        for row in rows
        if (row.metric, row.benchmark, row.reward) == ("iqm", *runs.setting)
        and row.source != PAPER
        and row.value is not None
    }
    return [
        _plain(runs, f"step_to_match{end}", step / 1e6, STEPS, method=baseline)
        for end, found in (("", step_reached), (FIRST, step_first_reached))
        for baseline, level in levels.items()
        if (step := found(runs.env_steps, curve, level)) is not None
    ]


def differences(
    found: Sequence[Measure], wanted: Collection[tuple[str, int | None, str]]
) -> tuple[list[Measure], list[str]]:
    """What PopArt adds with and without FG-c (under Tables D.1 and D.3), and the gap between V2 and V1 rewards.

    FG-c is FairGrad on the critic. The gap is the interquartile mean on V2 minus that on V1, for each rung, that is,
    for each row of the paper's ladder.

    Args:
        found: numbers of several labels.
        wanted: metric, k and reward of each difference to make.

    Returns:
        The differences, and notes. A note names a difference that is missing because its two runs end at different
        steps.
    """
    by_key = {m.key: m for m in found if m.label == m.method and not m.task}
    made: list[Measure] = []
    notes: list[str] = []

    def between(label: str, reward: str, metric: str, less: Measure, of: Measure) -> None:
        if less.env_steps == of.env_steps:
            difference = replace(
                of,
                label=label,
                method=label,
                reward=reward,
                metric=metric,
                value=of.value - less.value,
                n=min(less.n, of.n),
                unit=POINTS,
                std=None,
                sem=None,
                low=None,
                high=None,
            )
            made.append(difference)
        else:
            notes.append(
                f"no {metric} of {label}: {less.label} ({less.reward}) ends at {less.env_steps:,} steps, "
                f"{of.label} ({of.reward}) at {of.env_steps:,}"
            )

    for setting in sorted({(m.benchmark, m.reward) for m in by_key.values()}):
        for label, (without, with_popart) in _POPART.items():
            for metric, k in (("final", None), ("worst_k", 10), ("iqm", None)):
                pair = [by_key.get((method, *setting, metric, k, "")) for method in (without, with_popart)]
                if pair[0] and pair[1] and (f"{metric}_difference", k, setting[1]) in wanted:
                    between(label, setting[1], f"{metric}_difference", pair[0], pair[1])
    for m in list(by_key.values()):
        v2 = by_key.get((m.method, m.benchmark, "v2", "iqm", None, ""))
        if m.metric == "iqm" and m.reward == "v1" and v2 is not None and ("iqm_gap", None, "v1-v2") in wanted:
            between(m.method, "v1-v2", "iqm_gap", m, v2)
    return made, notes


def _success(
    runs: Aligned, metric: str, values: Float[np.ndarray, "n"], k: int | None = None, task: str = ""
) -> Measure:
    """A success rate in percent, from one rate per seed."""
    over = summarise(100 * values)
    measure = _plain(runs, metric, over.iqm if metric == "iqm" else over.mean, PERCENT)
    measure = replace(measure, k=k, task=task)
    if over.n == 1:
        return measure
    measure = replace(measure, std=over.std, sem=over.sem)
    return replace(measure, low=over.iqm_low, high=over.iqm_high) if metric == "iqm" else measure


def _plain(runs: Aligned, metric: str, value: float, unit: str, method: str | None = None) -> Measure:
    """A number without a spread over seeds."""
    return Measure(
        label=runs.label,
        method=method or runs.method,
        benchmark=runs.benchmark,
        reward=runs.reward,
        metric=metric,
        value=value,
        n=len(runs.seeds),
        env_steps=runs.last_step,
        unit=unit,
    )

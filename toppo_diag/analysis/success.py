"""Success rates to the numbers of the paper's tables: over checkpoints, over tasks, over seeds.

A *curve* is the mean success over the tasks at each checkpoint, one a seed: (S, n). `toppo.dump.worst_k`, the trainer's
own, makes of success (S, n, K) the curve of each seed's k worst tasks at each checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

TRIM = 0.25
"""Share of the seeds that the interquartile mean drops at each end (Table D.3)."""
LATE = 10
"""The late window is the last 1 / LATE of the steps (Table D.10)."""
RESAMPLES = 2000
CONFIDENCE = 0.95


def final(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Each seed at the last checkpoint (Table D.10, *final*)."""
    return np.asarray(curves[-1])


def best_per_seed(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Each seed at its own best checkpoint (Table D.10, *best*)."""
    return np.asarray(curves.max(axis=0))


def peak(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Each seed at the one checkpoint where the mean curve is highest, the earliest such (Table D.10, *peak*)."""
    return np.asarray(curves[curves.mean(axis=1).argmax()])


def late(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Each seed's mean over the checkpoints of the last 10% of steps, both ends included (Table D.10, *late*)."""
    return np.asarray(curves[LATE * env_steps >= (LATE - 1) * env_steps[-1]].mean(axis=0))


AGGREGATORS: dict[str, Callable[..., Float[np.ndarray, "n"]]] = {
    "best": best_per_seed,
    "peak": peak,
    "final": final,
    "late": late,
}
"""Table D.10's four: checkpoint steps (S,) and curves (S, n) to one number a seed (n,)."""


def std(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Sample standard deviation over the seeds, n - 1 below; NaN for one seed.

    The paper does not say which, its tables do: two seeds of ten at 100% and eight at 0% are 20.0 +- 42.2 in Table D.5
    (drawer-open-v3, vanilla), which is 40.0 with n below.
    """
    n = values.shape[-1]
    return np.asarray(values.std(axis=-1, ddof=1)) if n > 1 else np.full(values.shape[:-1], np.nan)


def sem(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Standard error of the mean over the seeds, std / sqrt(n) (Section D.7); NaN for one seed."""
    return std(values) / math.sqrt(values.shape[-1])


def iqm(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Interquartile mean over the seeds: without the floor(n / 4) least and as many greatest (Tables 3 and D.3)."""
    n = values.shape[-1]
    cut = int(TRIM * n)
    return np.asarray(np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1))


def bootstrap_interval(
    values: Float[np.ndarray, "... n"],
    statistic: Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]] = iqm,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Percentile bootstrap interval of a statistic over seeds. Whole seeds are drawn, n of them with replacement, and
    the same ones for every leading index, so that the interval of a curve resamples whole runs.

    Args:
        values: one number a seed, on the last axis.
        statistic: (..., n) to (...).
        confidence: of the interval, 0 to 1.
        resamples: draws.
        seed: of the draws.

    Returns:
        Lower and upper end, (...) each; NaN for one seed.
    """
    n = values.shape[-1]
    if n == 1:
        return np.full(values.shape[:-1], np.nan), np.full(values.shape[:-1], np.nan)
    drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    statistics = statistic(values[..., drawn])
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail], axis=-1)
    return low, high


@dataclass(frozen=True)
class Summary:
    """One number a seed, summed up, in the unit of the values.

    Attributes:
        mean: over the seeds.
        std: see `std`.
        sem: see `sem`.
        iqm: see `iqm`.
        iqm_low: 95% bootstrap interval of the IQM.
        iqm_high: its upper end.
        n: seeds.
    """

    mean: float
    std: float
    sem: float
    iqm: float
    iqm_low: float
    iqm_high: float
    n: int


def summarise(values: Float[np.ndarray, "n"]) -> Summary:
    """Every statistic of one number a seed."""
    low, high = bootstrap_interval(values)
    return Summary(
        mean=float(values.mean()),
        std=float(std(values)),
        sem=float(sem(values)),
        iqm=float(iqm(values)),
        iqm_low=float(low),
        iqm_high=float(high),
        n=len(values),
    )


def best_checkpoint_steps(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Int[np.ndarray, "n"]:
    """The step of each seed's best checkpoint, the earliest of equals (Table D.11)."""
    return np.asarray(env_steps[curves.argmax(axis=0)])


@dataclass(frozen=True)
class Steps:
    """A distribution over seeds, as Table D.11 gives it. Quartiles are interpolated linearly."""

    median: float
    q25: float
    q75: float
    least: float
    most: float


def step_distribution(steps: Int[np.ndarray, "n"]) -> Steps:
    """Median, quartiles and range of one step a seed."""
    least, q25, median, q75, most = (float(q) for q in np.quantile(steps, [0, 0.25, 0.5, 0.75, 1]))
    return Steps(median, q25, q75, least, most)


def step_reached(env_steps: Int[np.ndarray, "S"], curve: Float[np.ndarray, "S"], level: float) -> int | None:
    """The first checkpoint from which a curve is at or above a level for good (Table 3's *step to match*); None if it
    ends below.
    """
    below = np.flatnonzero(~(curve >= level))
    first = below[-1] + 1 if len(below) else 0
    return int(env_steps[first]) if first < len(env_steps) else None

"""The statistics of the paper's tables, from success rates over checkpoints, tasks and seeds.

A *curve* is the mean success over the tasks at each checkpoint, for each seed: (S, n). `toppo.dump.worst_k` makes
curves of the k worst tasks from success (S, n, K).
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
    """Success of each seed at the last checkpoint (Table D.10, *final*)."""
    return np.asarray(curves[-1])


def best_per_seed(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Success of each seed at its own best checkpoint (Table D.10, *best*)."""
    return np.asarray(curves.max(axis=0))


def peak(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Success of each seed at the checkpoint where the mean over the seeds is highest (Table D.10, *peak*).

    Of several such checkpoints, the earliest counts.
    """
    return np.asarray(curves[curves.mean(axis=1).argmax()])


def late(env_steps: Int[np.ndarray, "S"], curves: Float[np.ndarray, "S n"]) -> Float[np.ndarray, "n"]:
    """Mean success of each seed over the checkpoints in the last 10% of steps (Table D.10, *late*).

    Both ends of this window count.
    """
    return np.asarray(curves[LATE * env_steps >= (LATE - 1) * env_steps[-1]].mean(axis=0))


AGGREGATORS: dict[str, Callable[..., Float[np.ndarray, "n"]]] = {
    "best": best_per_seed,
    "peak": peak,
    "final": final,
    "late": late,
}
"""The four columns of Table D.10. Each takes environment steps (S,) and curves (S, n), and gives a number per seed."""


def std(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Sample standard deviation over the seeds, with divisor n - 1; NaN for one seed.

    The paper does not name the divisor, but Table D.5 shows it: two of ten seeds at 100% and eight at 0% stand there as
    20.0 +- 42.2 (drawer-open-v3, vanilla). With divisor n it would be 40.0.
    """
    n = values.shape[-1]
    return np.asarray(values.std(axis=-1, ddof=1)) if n > 1 else np.full(values.shape[:-1], np.nan)


def sem(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Standard error of the mean over the seeds, std / sqrt(n) (Section D.7); NaN for one seed."""
    return std(values) / math.sqrt(values.shape[-1])


def iqm(values: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "..."]:
    """Interquartile mean over the seeds (Tables 3 and D.3). The floor(n / 4) lowest and highest seeds do not count."""
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
    """Percentile bootstrap interval of a statistic over the seeds.

    Each draw takes n seeds with replacement. It takes the same seeds at every leading index, so for a curve it
    resamples whole runs.

    Args:
        values: one number per seed, on the last axis.
        statistic: (..., n) to (...).
        confidence: of the interval, 0 to 1.
        resamples: number of draws.
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
    """Statistics of one number per seed, in the unit of the values.

    Attributes:
        mean: mean over the seeds.
        std: sample standard deviation; NaN for one seed.
        sem: standard error of the mean; NaN for one seed.
        iqm: interquartile mean.
        iqm_low: lower end of the 95% bootstrap interval of the interquartile mean; NaN for one seed.
        iqm_high: upper end of this interval.
        n: number of seeds.
    """

    mean: float
    std: float
    sem: float
    iqm: float
    iqm_low: float
    iqm_high: float
    n: int


def summarise(values: Float[np.ndarray, "n"]) -> Summary:
    """All statistics of one number per seed."""
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
    """Environment steps of each seed's best checkpoint (Table D.11). Of several equal ones, the earliest counts."""
    return np.asarray(env_steps[curves.argmax(axis=0)])


@dataclass(frozen=True)
class Steps:
    """Distribution of environment steps over the seeds, as in Table D.11. Quartiles are interpolated linearly."""

    median: float
    q25: float
    q75: float
    least: float
    most: float


def step_distribution(steps: Int[np.ndarray, "n"]) -> Steps:
    """Median, quartiles and range, from one number of steps per seed."""
    least, q25, median, q75, most = (float(q) for q in np.quantile(steps, [0, 0.25, 0.5, 0.75, 1]))
    return Steps(median, q25, q75, least, most)


def step_first_reached(env_steps: Int[np.ndarray, "S"], curve: Float[np.ndarray, "S"], level: float) -> int | None:
    """Environment steps at which a curve is first at or above a level. It may fall below it again.

    None if it never gets there.
    """
    there = np.flatnonzero(curve >= level)
    return int(env_steps[there[0]]) if len(there) else None


def step_reached(env_steps: Int[np.ndarray, "S"], curve: Float[np.ndarray, "S"], level: float) -> int | None:
    """Environment steps from which a curve stays at or above a level (*step to match* in Table 3).

    None if the curve ends below the level.
    """
    below = np.flatnonzero(~(curve >= level))
    first = below[-1] + 1 if len(below) else 0
    return int(env_steps[first]) if first < len(env_steps) else None

"""The runs of TaskForce's study: which configurations, how each is trained, and the file that keeps them."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from tests.benchmarks.digits import LONG, METRICS, TASKS, delta_m, train
from tests.benchmarks.taskforce_methods import BASELINES, NORMALISED, TASKFORCE, make_seeded
from toppo.combiners import Combination, Combiner, Mean

OUT = Path(__file__).parents[2] / "figures" / "taskforce"
SEEDS = 3
STL = "alone"
"""Spec of the four networks that each train one task."""
FIXED = "fixed "
"""Starts the spec of a run whose weights are, at every step, the mean weights of another run with the same seed."""
TIMED, ROUNDS = 400, 5
"""Steps of a run whose time is measured, and how often."""
AT_BOUNDS = 300.0
"""With weights further apart than this, agents stand at both of their bounds (400 is the most)."""

FORMS = {"raw gradients": "", "normalised step": ",step=normalised"}
BASE = "taskforce:r_g=norm"

BUFFERS = {100: ",buffer=100", 1_000: ",buffer=1000", LONG.steps: ""}
"""Figure 3. The default of 100,000 holds the whole run."""
NOISES = {
    "none": ",noise_start=0,noise_end=0",
    "0.3 to 0.05": "",
    "1 to 0.2": ",noise_start=1,noise_end=0.2",
}
"""Figure 3. The second is the default."""
EVERY = {1: "", 5: ",every=5", 10: ",every=10", 20: ",every=20"}
"""Figure 4: steps between updates of the agents."""
RATIOS = {
    "1 : 0": ("taskforce:r_g=none", "taskforce:r_g=none"),
    "1 : 0.01": ("taskforce:r_g=norm,lambda_g=0.01", "taskforce:r_g=imtl,lambda_imtl=0.01"),
    "1 : 1": ("taskforce:r_g=norm,lambda_g=1", "taskforce:r_g=imtl"),
    "0 : 1": ("taskforce:r_g=norm,lambda_l=0,lambda_g=1", "taskforce:r_g=imtl,lambda_l=0"),
}
"""Table 7: lambda_L : lambda_G with r_G and with r_G^IMTL."""
CONTROLS = {
    "rewards r_L and r_G": BASE,
    "no reward at all": "taskforce:r_g=none,lambda_l=0",
    "weights at most 55 times apart": f"{BASE},sharpness=2",
    "weights at most 7 times apart": f"{BASE},sharpness=1",
    "weights at most 2.7 times apart": f"{BASE},sharpness=0.5",
    "no learning, no noise: equal weights": "taskforce:r_g=none,lambda_l=0,noise_start=0,noise_end=0,lr=1e-12",
}
"""What the agents' rewards and their bounds do."""
HELD = {"its mean weights, fixed": f"{FIXED}{BASE}"}
"""What it does that weights move; only for raw gradients."""


@dataclass(frozen=True)
class Run:
    """One line of study.csv.

    Attributes:
        metrics: `METRICS` on the held-out third.
        weights: mean weight of each task over the run, (4,). With a normalised step it is the weight of the unit
            gradient.
        at_bounds: share of the calls with weights more than AT_BOUNDS apart.
    """

    metrics: np.ndarray
    weights: np.ndarray
    at_bounds: float

    COLUMNS: ClassVar[tuple[str, ...]] = (*METRICS, *(f"weight of {task}" for task in TASKS), "at_bounds")

    @property
    def row(self) -> list[float]:
        """Numbers in the order of COLUMNS."""
        return [float(f"{v:.6g}") for v in (*self.metrics, *self.weights, self.at_bounds)]

    @classmethod
    def read(cls, numbers: Sequence[float]) -> Run:
        """The inverse of `row`."""
        return cls(np.array(numbers[:4]), np.array(numbers[4:8]), *numbers[8:])


Runs = dict[tuple[str, int], Run]
"""By spec and seed."""


@dataclass
class Fixed(Mean):
    """The same weights at every step."""

    weights: tuple[float, ...] = ()

    def _combine(self, gram: np.ndarray, losses: np.ndarray | None, order: np.ndarray | None) -> Combination:
        return Combination(np.array(self.weights), super()._combine(gram, losses, order).record)


def specs() -> list[str]:
    """Every configuration once. Those that answer most come first."""
    forms = list(FORMS.values())
    found = [STL, *BASELINES.values(), *TASKFORCE.values(), *NORMALISED.values()]
    found += [spec + form for spec in CONTROLS.values() for form in forms] + [*HELD.values()]
    found += [BASE + option + form for option in EVERY.values() for form in forms]
    found += [f"{spec},strategy=same" for spec in (*TASKFORCE.values(), *NORMALISED.values())]
    found += [BASE + option + form for option in (*BUFFERS.values(), *NOISES.values()) for form in forms]
    found += [spec + form for pair in RATIOS.values() for spec in pair for form in forms]
    return list(dict.fromkeys(found))


def one(spec: str, seed: int, runs: Runs) -> Run:
    """Train one configuration."""
    if spec == STL:
        metrics = np.array([train(make_seeded("mean", seed), seed, LONG, [k]).metrics[k] for k in range(4)])
        return Run(metrics, np.ones(4), 0.0)
    combiner: Combiner = (
        Fixed(weights=tuple(runs[spec.removeprefix(FIXED), seed].weights))
        if spec.startswith(FIXED)
        else make_seeded(spec, seed)
    )
    trained = train(combiner, seed, LONG)
    w = trained.weights * trained.norms if FORMS["normalised step"] in spec else trained.weights
    apart = w.max(axis=1) > AT_BOUNDS * np.abs(w).min(axis=1)
    return Run(trained.metrics, w.mean(axis=0), apart.mean())


def read(path: Path) -> Runs:
    """The runs that are there."""
    if not path.exists():
        return {}
    with path.open() as file:
        lines = list(csv.reader(file))[1:]
    return {(spec, int(seed)): Run.read([float(v) for v in rest]) for spec, seed, *rest in lines}


def complete(path: Path, seeds: Sequence[int]) -> Runs:
    """Make the runs of some seeds that are missing. Each is written when it ends."""
    runs = read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        table = csv.writer(file, lineterminator="\n")
        if not runs:
            table.writerow(["spec", "seed", *Run.COLUMNS])
        for seed in seeds:
            for spec in specs():
                if (spec, seed) not in runs:
                    run = runs[spec, seed] = one(spec, seed, runs)
                    table.writerow([spec, seed, *run.row])
                    file.flush()
                    print(f"seed {seed}  {run.metrics.round(4)}  {spec}", flush=True)
    return runs


def timed() -> list[str]:
    """The configurations whose times are told."""
    methods = [*TASKFORCE.values(), *NORMALISED.values()]
    return [
        *methods,
        *(f"{spec},strategy=same" for spec in methods),
        *(BASE + option + form for option in EVERY.values() for form in FORMS.values() if option),
    ]


def measure(path: Path) -> None:
    """Processor time per step of short runs, the least of several in turn: other work on the machine slows all."""
    least = dict.fromkeys(timed(), float("inf"))
    short = replace(LONG, steps=TIMED)
    for _ in range(ROUNDS):
        for spec in least:
            combiner = make_seeded(spec, 0)
            began = time.process_time()
            train(combiner, 0, short)
            least[spec] = min(least[spec], 1e3 * (time.process_time() - began) / TIMED)
    with path.open("w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["spec", "ms"])
        table.writerows([spec, f"{ms:.3f}"] for spec, ms in least.items())


class Study:
    """All runs, and what the tables say of a configuration."""

    def __init__(self, runs: Runs, times: Mapping[str, float]) -> None:
        self.times = times
        by_spec: dict[str, list[Run]] = defaultdict(list)
        seeds = [seed for seed in range(SEEDS) if (STL, seed) in runs]
        for spec in specs():
            by_spec[spec] = [runs[spec, seed] for seed in seeds if (spec, seed) in runs]
        self.runs = by_spec

    def delta(self, spec: str) -> np.ndarray:
        """Delta-m of each seed, percent."""
        found = np.stack([run.metrics for run in self.runs[spec]])
        return delta_m(found, np.stack([run.metrics for run in self.runs[STL]])[: len(found)])

    def cell(self, spec: str) -> str:
        """Delta-m, mean and standard deviation over the seeds."""
        d = self.delta(spec)
        return f"{d.mean():+.1f} ± {d.std(ddof=1):.1f} %"

    def mean(self, spec: str, of: Callable[[Run], float]) -> float:
        """Mean of a number over the seeds."""
        return float(np.mean([of(run) for run in self.runs[spec]]))


def read_times(path: Path) -> dict[str, float]:
    """The times that `measure` wrote, by spec, in milliseconds."""
    with path.open() as file:
        return {spec: float(ms) for spec, ms in list(csv.reader(file))[1:]}


def load() -> Study:
    """The study as its files hold it."""
    return Study(read(OUT / "study.csv"), read_times(OUT / "study-time.csv"))

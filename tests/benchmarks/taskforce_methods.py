"""The methods that the TaskForce benchmarks compare, and one loop's worth of calling them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toppo.combiners import Combiner, TaskForce, check_gram, make
from toppo.combiners.taskforce import project

BASELINES = {
    "mean": "mean",
    "PCGrad": "pcgrad",
    "MGDA": "mgda",
    "CAGrad": "cagrad:c=0.4",
    "IMTL-G": "imtl-g",
    "Nash-MTL": "nash-mtl",
    "Aligned-MTL": "aligned-mtl",
    "FairGrad": "fairgrad:alpha=1",
    "FAMO": "famo",
}
TASKFORCE = {
    "TaskForce (r_L)": "taskforce:r_g=none",
    "TaskForce (r_L & r_G)": "taskforce:r_g=norm",
    "TaskForce (r_L & r_G^IMTL)": "taskforce:r_g=imtl",
}
NORMALISED = {f"{label}, normalised step": f"{spec},step=normalised" for label, spec in TASKFORCE.items()}

FEATURES = 64
"""Columns that observation=raw is shown."""

Look = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Gradients (K, P) and losses (K,) of the batch at hand, at the parameters as they are."""


def make_seeded(spec: str, seed: int) -> Combiner:
    """The combiner of a spec. TaskForce's agents get the seed."""
    return make(f"{spec}{',' if ':' in spec else ':'}seed={seed}" if spec.startswith("taskforce") else spec)


def weigh(combiner: Combiner, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One call of a combiner: weights, gradients and losses."""
    J, losses = look()
    _show(combiner, J)
    order = combiner.draw_order(rng, len(J))
    return combiner.combine(J @ J.T, losses=losses, order=order).weights, J, losses


def look_again(combiner: Combiner, look: Look) -> None:
    """After the step: the same batch once more, for TaskForce's Strategy 2."""
    if isinstance(combiner, TaskForce) and combiner.strategy == "same":
        J, losses = look()
        _show(combiner, J)
        combiner.after(check_gram(J @ J.T), losses)


def _show(combiner: Combiner, J: np.ndarray) -> None:
    if isinstance(combiner, TaskForce) and combiner.observation == "raw":
        combiner.show(project(J, FEATURES))


class Adam:
    """Adam on a vector of parameters."""

    def __init__(self, size: int, lr: float) -> None:
        self._lr, self._steps = lr, 0
        self._first, self._second = np.zeros(size), np.zeros(size)

    def step(self, theta: np.ndarray, gradient: np.ndarray) -> None:
        """Move theta in place."""
        self._steps += 1
        self._first += 0.1 * (gradient - self._first)
        self._second += 0.001 * (gradient**2 - self._second)
        first, second = self._first / (1 - 0.9**self._steps), self._second / (1 - 0.999**self._steps)
        theta -= self._lr * first / (np.sqrt(second) + 1e-8)

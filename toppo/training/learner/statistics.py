"""Summaries over the minibatches of one collect (rollout phase and updates), for progress.jsonl."""

from __future__ import annotations

from typing import Any

import numpy as np

from toppo.combiners.geometry import gradient_norms, mean_abs_cosine, spread
from toppo.training.learner.update import PER_TASK, SIDES, MinibatchUpdate


class UpdateStatistics:
    """Gathers the numbers of all minibatches of one update phase. A resumed run logs the same numbers."""

    def __init__(self) -> None:
        self._updates = 0
        self._per_task: dict[str, list[np.ndarray]] = {name: [] for name in PER_TASK}
        self._norms: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
        self._cosines: dict[str, list[float]] = {side: [] for side in SIDES}
        self._records: dict[str, list[tuple[float, int, int, float]]] = {side: [] for side in SIDES}
        self._clip_factors: list[float] = []

    def add(self, update: MinibatchUpdate) -> None:
        """Add one minibatch."""
        for name, values in update.per_task.items():
            self._per_task[name].append(values)
        for side, s in update.sides.items():
            self._norms[side].append(gradient_norms(s.gram))
            self._cosines[side].append(float(mean_abs_cosine(s.gram)))
            record = s.combination.record
            self._records[side].append((record.residual, record.iterations, int(record.status), record.ridge))
        self._clip_factors.append(update.clip_factor)

    def per_task(self) -> dict[str, np.ndarray]:
        """Means over the minibatches, (K,) each: the numbers of `PER_TASK`, and the gradient norms of each side."""
        means = {name: np.mean(values, axis=0) for name, values in self._per_task.items()}
        return means | {f"{side}_grad_norm": np.mean(norms, axis=0) for side, norms in self._norms.items()}

    def summary(self) -> dict[str, Any]:
        """The mean clip factor, and for each side the norm spread, the mean |cos| and the combiner's worst records."""
        line: dict[str, Any] = {"clip_factor": float(np.mean(self._clip_factors))}
        for side in SIDES:
            residual, iterations, status, ridge = (
                np.array(column) for column in zip(*self._records[side], strict=True)
            )
            spreads = spread(np.stack(self._norms[side]))
            line[side] = {
                "norm_spread_first": float(spreads[0]),
                "norm_spread_median": float(np.median(spreads)),
                "mean_abs_cosine_first": self._cosines[side][0],
                "mean_abs_cosine": float(np.mean(self._cosines[side])),
                "most_dead_tasks": int((np.stack(self._norms[side]) == 0).sum(axis=1).max()),
                "worst_residual": float(residual.max()),
                "most_iterations": int(iterations.max()),
                "not_ok": int((status != 0).sum()),
                "largest_ridge": float(ridge.max()),
            }
        return line

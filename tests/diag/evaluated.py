"""Run directories with given evaluations, in the trainer's own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toppo.training.config import resolve

MT10 = (
    *("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3"),
    *("button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3"),
)


def evaluate(
    path: Path,
    success: np.ndarray | Sequence[Sequence[float]],
    *,
    preset: str = "toppo",
    seed: int = 0,
    tasks: Sequence[str] = MT10,
    every: int = 400_000,
    planned: int | None = None,
    **options: object,
) -> Path:
    """A run whose success at evaluation s is row s; `planned` evaluations beyond the first, all of them by default."""
    success = np.asarray(success)
    path.mkdir(parents=True)
    steps = every * (len(success) - 1 if planned is None else planned)
    config = resolve({"seed": seed, "env_steps": max(steps, every), "workers": 1, **options}, preset=preset)
    (path / "config.toml").write_text(config.to_toml())
    (path / "progress.jsonl").write_text('{"collect": 1, "env_steps": 100000}\n')
    write_evaluations(path, success, tasks, every)
    return path


def write_evaluations(path: Path, success: np.ndarray, tasks: Sequence[str], every: int) -> None:
    """evaluation.jsonl, as `toppo.training.run.trainer.evaluation_line` makes it."""
    lines = [
        {
            "collect": 4 * s,
            "env_steps": every * s,
            "mean_success": float(rates.mean()),
            "worst_10_success": float(np.sort(rates)[:10].mean()),
            "tasks": {task: {"success": float(rate), "return": 1.0} for task, rate in zip(tasks, rates, strict=True)},
        }
        for s, rates in enumerate(success)
    ]
    (path / "evaluation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def flat(*means: float, k: int = 10) -> np.ndarray:
    """(S, K): all tasks alike at each evaluation."""
    return np.repeat(np.array(means)[:, None], k, axis=1)

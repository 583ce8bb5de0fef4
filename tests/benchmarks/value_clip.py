"""What PPO's value clip does to a run without PopArt: two runs side by side, from their logs.

Run it as `python -m tests.benchmarks.value_clip WITH WITHOUT`, with the directories of a run with `value_clip` and of
one without. It prints the tables of docs/results.md, up to the last collect that both runs have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from toppo.training.run.directory import Run


def main() -> None:
    """Print one row for each task, and one for each number of the whole run."""
    runs = [Run(Path(path)) for path in sys.argv[1:3]]
    progress = [run.progress for run in runs]
    last = min(int(log["env_steps"].max()) for log in progress)
    clipped, free = (log[log["env_steps"] <= last] for log in progress)
    collects = clipped["collect"].nunique()
    print(f"Medians over {collects} collects, up to {last:,} steps.\n")
    print("| task | clipped samples | critic's loss with the clip | without | with / without |\n|---|---|---|---|---|")
    for task in clipped["task"].unique():
        own, other = (of[of["task"] == task] for of in (clipped, free))
        losses = own["loss_critic"].median(), other["loss_critic"].median()
        share = 100 * own["value_clip_fraction"].median()
        print(f"| {task} | {share:.0f} % | {losses[0]:,.3g} | {losses[1]:,.3g} | {losses[0] / losses[1]:.2g} |")
    print("\n| of the run | with the clip | without |\n|---|---|---|")
    for name, column in (
        ("critic's spread", "critic_norm_spread_median"),
        ("actor's spread", "actor_norm_spread_median"),
    ):
        print(
            f"| {name}, median over the collects | {_median(clipped, column):,.3g}x | {_median(free, column):,.3g}x |"
        )
    dead = [int(of.groupby("collect")["critic_most_dead_tasks"].first().max()) for of in (clipped, free)]
    print(f"| most tasks without a critic gradient in a minibatch | {dead[0]} | {dead[1]} |")
    success = [of[of["env_steps"] == last]["success"].mean() for of in (clipped, free)]
    print(f"| training success at {last:,} steps | {success[0]:.3f} | {success[1]:.3f} |")
    for step, *rates in zip(*_evaluations(runs), strict=False):
        print(f"| evaluation at {step:,} steps | {rates[0]:.3f} | {rates[1]:.3f} |")


def _median(log: pd.DataFrame, column: str) -> float:
    return float(log.groupby("collect")[column].first().median())


def _evaluations(runs: list[Run]) -> tuple[list[int], list[float], list[float]]:
    """Steps of the evaluations that both runs have, and the success of each run."""
    first, second = (run.evaluations.groupby("env_steps")["success"].mean() for run in runs)
    common = first.index.intersection(second.index)
    return common.astype(int).tolist(), first[common].tolist(), second[common].tolist()


if __name__ == "__main__":
    main()

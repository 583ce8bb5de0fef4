"""What PPO's value clip does to a run without PopArt: two runs side by side, from their logs.

Run it as `python -m tests.benchmarks.value_clip WITH WITHOUT`, with two run directories or archives: a run with
`value_clip` and one without. It prints the tables of docs/results.md, up to the last collect that both runs have.
"""

from __future__ import annotations

import os
import sys

import pandas as pd

from toppo.common.jsonl import parse
from toppo.dump import run_logs
from toppo.training.run.directory import log_table


def tables(with_clip: str | os.PathLike[str], without: str | os.PathLike[str]) -> str:
    """One row for each task, and one for each number of the whole run, as Markdown."""
    logs = [run_logs(path) for path in (with_clip, without)]
    progress = [log_table(parse(log["progress.jsonl"], "progress.jsonl").lines) for log in logs]
    last = min(int(log["env_steps"].max()) for log in progress)
    clipped, free = (log[log["env_steps"] <= last] for log in progress)
    head = "| task | clipped samples | critic's loss with the clip | without | with / without |"
    lines = [head, "|---" * 5 + "|"]
    for task in clipped["task"].unique():
        own, other = (of[of["task"] == task] for of in (clipped, free))
        losses = own["loss_critic"].median(), other["loss_critic"].median()
        share = 100 * own["value_clip_fraction"].median()
        ratio = f"{losses[0] / losses[1]:.2g}"
        lines.append(f"| {task.removesuffix('-v3')} | {share:.0f} % | {losses[0]:,.3g} | {losses[1]:,.3g} | {ratio} |")
    lines += ["", "| of the run | with the clip | without |", "|---" * 3 + "|"]

    def line(name: str, numbers: list[float], form: str) -> None:
        lines.append(f"| {name} | {' | '.join(format(number, form) for number in numbers)} |")

    for side in ("critic", "actor"):
        of_side = [_median(of, f"{side}_norm_spread_median") for of in (clipped, free)]
        line(f"{side}'s spread, median over the collects", of_side, ",.3g")
    dead = [int(of.groupby("collect")["critic_most_dead_tasks"].first().max()) for of in (clipped, free)]
    line("most tasks without a critic gradient in a minibatch", dead, "d")
    line(f"training success at {last:,} steps", [_success(of, last) for of in (clipped, free)], ".3f")
    evaluations = [log_table(parse(log["evaluation.jsonl"], "evaluation.jsonl").lines) for log in logs]
    for step in sorted(set.intersection(*(set(of["env_steps"]) for of in evaluations))):
        if step:
            line(f"evaluation at {step:,} steps", [_success(of, step) for of in evaluations], ".3f")
    return "\n".join(lines)


def _median(log: pd.DataFrame, column: str) -> float:
    return float(log.groupby("collect")[column].first().median())


def _success(log: pd.DataFrame, step: int) -> float:
    return float(log[log["env_steps"] == step]["success"].mean())


if __name__ == "__main__":
    print(tables(*sys.argv[1:3]))

"""Success of Meta-World's scripted experts in our environments, for each task under V1 and V2 rewards.

A scripted expert (`metaworld.policies`) is a hand-written controller of one task. If an expert finishes its task, and a
success is never reported, then no learner can be scored on this task.

The episodes are those of our evaluation: the first goals of seed 0, each played once, until the first success. Run it
as `python -m tests.benchmarks.scripted_experts`. It prints the table of docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import numpy as np

from tests.benchmarks.experts import Experts
from toppo.training.envs.workers import MetaWorldBackend

REWARDS = ("v1", "v2")


def success_rates(reward: str, goals: int, workers: int) -> tuple[dict[str, float], Mapping[str, str]]:
    """Share of the goals of each task that its expert reaches, and the versions of the packages."""
    backend = MetaWorldBackend(
        "MT50", reward=reward, seed=0, workers=workers, copies=1, episodes_per_env=1, eval_episodes=goals
    )
    try:
        rate = backend.evaluate(Experts(backend.tasks), lambda steps: None).success_rate
        return dict(zip(backend.tasks, rate.tolist(), strict=True)), backend.versions
    finally:
        backend.close()


def main() -> None:
    """Print one row for each task whose expert fails at some goal, and a line about all the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goals", type=int, default=10, help="goals of each task")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    found = {}
    for reward in REWARDS:
        found[reward], versions = success_rates(reward, arguments.goals, arguments.workers)
        print(f"{reward}: mean over the tasks {np.mean(list(found[reward].values())):.3f}", file=sys.stderr)
    print(f"{arguments.goals} goals of each task; {', '.join(f'{name} {of}' for name, of in versions.items())}\n")
    print("| task | V1 rewards | V2 rewards |\n|---|---|---|")
    for task in found["v2"]:
        rates = [found[reward][task] for reward in REWARDS]
        if min(rates) < 1:
            print(f"| {task} | {rates[0]:.0%} | {rates[1]:.0%} |")
    print(f"\nAll others of the {len(found['v2'])} tasks: 100% under both.")


if __name__ == "__main__":
    main()

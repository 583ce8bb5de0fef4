"""What TaskForce's agents cost: `python -m tests.benchmarks.bench_taskforce`.

An update of all agents from one batch of 64, at T = 5 to T = 50 tasks, interleaved in one run; then a whole call of the
combiner with the agents updated at every call and at every tenth, against the appendix's x8.73. Seconds are the
processor's: other work on the machine counts little. The agents compute on one thread whatever OMP_NUM_THREADS.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from toppo.combiners import TaskForce, make

ROUNDS, CALLS = 25, 60


def warmed(spec: str, n_tasks: int) -> tuple[TaskForce, Callable[[], object]]:
    """A combiner whose agents learn at every call that is due, and a call of it."""
    combiner = make(spec)
    assert isinstance(combiner, TaskForce)
    rng = np.random.default_rng(0)
    J = rng.normal(size=(n_tasks, 200))
    gram = J @ J.T

    def call() -> object:
        return combiner.combine(gram, losses=rng.uniform(0.1, 1, n_tasks))

    for _ in range(combiner.batch + 2):
        call()
    return combiner, call


def learner(spec: str, n_tasks: int) -> Callable[[], object]:
    """An update of the agents alone."""
    combiner, _ = warmed(spec, n_tasks)
    mind = combiner._mind
    assert mind is not None
    rng = np.random.default_rng(0)
    return lambda: mind.agents.learn(mind.buffer.sample(combiner.batch, rng), *mind.buffer.reward_scale())


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Print the tables, and the ratios as JSON on the last line."""
    print(f"OMP_NUM_THREADS = {os.environ.get('OMP_NUM_THREADS', 'unset')}")
    kinds = {
        "own critics": "taskforce",
        "one shared critic": "taskforce:critics=shared",
        "single": "taskforce:agents=single",
    }
    sizes = (5, 10, 25, 50)
    updates = {(kind, n): learner(spec, n) for kind, spec in kinds.items() for n in sizes}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in updates}
    for _ in range(ROUNDS):
        for key, update in updates.items():
            times[key].append(seconds(update))
    found = {key: 1e3 * statistics.median(values) for key, values in times.items()}
    ratios = {}
    print("\nupdate of all agents, ms" + "".join(f"{f'T = {n}':>10}" for n in sizes) + "   T = 50 / T = 5")
    for kind in kinds:
        ratios[kind] = round(found[kind, 50] / found[kind, 5], 2)
        print(f"{kind:24}" + "".join(f"{found[kind, n]:10.2f}" for n in sizes) + f"{ratios[kind]:10.2f}")
    print("\na call of the combiner, ms    every = 1  every = 10   speed-up (appendix: 8.73)")
    for n in (3, 10, 50):
        each = {every: warmed(f"taskforce:every={every}", n)[1] for every in (1, 10)}
        total = dict.fromkeys(each, 0.0)
        for _ in range(CALLS):
            for every, call in each.items():
                total[every] += seconds(call)
        ratios[f"every 10, T = {n}"] = round(total[1] / total[10], 2)
        print(f"T = {n:<25}{1e3 * total[1] / CALLS:10.2f}{1e3 * total[10] / CALLS:12.2f}{total[1] / total[10]:10.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()

"""How long a combiner takes, and FairGrad beside the other solvers: `python -m tests.benchmarks.bench_combiners`.

Prints medians in microseconds on one BLAS thread. The budgets are a solve of FairGrad at alpha = 1 in 100 us at K = 10
and 200 us at
K = 50, and 30 us a Gram for `solve_many` at K = 10.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from tests.combiners.gradients import clustered, gram_of
from toppo.combiners import FairGrad, make, names
from toppo.combiners.blas import single_thread
from toppo.combiners.fairgrad import solve
from toppo_diag.analysis.solver_bench import bench_table, solver_bench
from toppo_diag.markup import to_markdown


def microseconds(call: Callable[[], object], repeats: int = 200) -> float:
    """Median time of a call, the first tenth discarded."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[repeats // 10 :])


def main() -> None:
    """Print the tables."""
    rng = np.random.default_rng(0)
    stacks = {K: np.stack([gram_of(clustered(rng, K, spread=1e4)) for _ in range(200)]) for K in (10, 50)}

    print("FairGrad, alpha = 1, over 200 clustered Grams   K = 10   K = 50")
    with single_thread():
        for label, call in (("solve", solve), ("combine (with checks)", FairGrad().combine)):
            each = {K: [microseconds(partial(call, G), 20) for G in stack] for K, stack in stacks.items()}
            print(f"{label:46}{statistics.median(each[10]):9.0f}{statistics.median(each[50]):9.0f}")
        batched = {K: microseconds(partial(FairGrad().solve_many, s), 10) / len(s) for K, s in stacks.items()}
        print(f"{'solve_many, a Gram':46}{batched[10]:9.0f}{batched[50]:9.0f}")

    print("\ncombine of every method                         K = 10   K = 50")
    for name in names():
        times = {}
        for K, stack in stacks.items():
            combiner = make(name if name != "torchjd" else "torchjd:weighting=MGDA")
            order, losses = combiner.draw_order(rng, K), rng.uniform(0.1, 1, K)
            times[K] = microseconds(partial(combiner.combine, stack[0], losses=losses, order=order), 40)
        print(f"{combiner.spec:46}{times[10]:9.0f}{times[50]:9.0f}")

    print()
    print(to_markdown(bench_table(solver_bench())))


if __name__ == "__main__":
    main()

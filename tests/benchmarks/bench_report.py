"""What the report costs: run `python -m tests.benchmarks.bench_report` on an otherwise idle machine.

Makes runs of MT10 and MT50 at the size of 20 million steps (40 snapshots of 5 minibatches with layers, 200 collects of
16 streamed Grams), with random gradients that become less alike over time. Prints how long the page takes to make, how
large the file is and, where Playwright and Chromium are there, how long it takes to open.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import toppo_diag
from toppo.combiners import make
from toppo.dump import ENV_STEPS, DumpWriter, ParameterSlice, ScalarSpec, gram
from toppo_diag.plots.names import METAWORLD

SNAPSHOTS, MINIBATCHES, COLLECTS, ENTRIES = 40, 5, 200, 16
STEPS = 20_000_000
LAYERS = {"actor": 8, "critic": 11}
WIDTH = 40
"""Parameters of a layer. Real layers have more; the report sees their Grams alone."""
LIMITS = {10: 6.0, 50: 20.0}
"""Megabytes that a page may have, by number of tasks."""


def record(path: Path, n_tasks: int, seed: int = 0) -> Path:
    """A run directory with the schedule above."""
    rng = np.random.default_rng(seed)
    tasks = [f"{name}-v3" for name in METAWORLD[:n_tasks]]
    sides = {side: [ParameterSlice(f"trunk.{n}.weight", (WIDTH,)) for n in range(L)] for side, L in LAYERS.items()}
    combiner = make("fairgrad:alpha=1")

    def gradients(side: str, share: float) -> np.ndarray:
        shape = (n_tasks, WIDTH * LAYERS[side])
        scale = np.logspace(-2 if side == "critic" else -0.3, 0, n_tasks)[:, None]
        common = (1 - share) * rng.standard_normal(shape[1])
        return (scale * (rng.standard_normal(shape) + common)).astype(np.float32)

    with DumpWriter.create(
        path / "dump.zarr",
        tasks=tasks,
        sides=sides,
        snapshots=SNAPSHOTS,
        minibatches=MINIBATCHES,
        step=ENV_STEPS,
        stream=(COLLECTS, ENTRIES),
        minibatch_scalars={f"{kind}_{side}": ScalarSpec() for kind in ("loss",) for side in sides}
        | {f"{side}_weights": ScalarSpec() for side in sides},
        snapshot_scalars={"popart_sigma": ScalarSpec(), "success": ScalarSpec()},
        attrs={"config": {"popart": "welford"}, "combiners": dict.fromkeys(sides, "fairgrad:alpha=1")},
    ) as dump:
        every = COLLECTS // SNAPSHOTS
        for c in range(COLLECTS):
            steps, share = STEPS // COLLECTS * (c + 1), (c + 1) / COLLECTS
            grams = {side: np.stack([gram(gradients(side, share)) for _ in range(ENTRIES)]) for side in sides}
            dump.record_stream(c, grams=grams, step=steps)
            if (c + 1) % every:
                continue
            for m in range(MINIBATCHES):
                slabs = {side: gradients(side, share) for side in sides}
                weights = {f"{s}_weights": combiner.combine(gram(J).astype(float)).weights for s, J in slabs.items()}
                losses = {f"loss_{side}": rng.random(n_tasks) for side in sides}
                dump.record_minibatch(m, slabs=slabs, scalars=weights | losses)
            sigma, success = rng.uniform(0.5, 2, n_tasks), np.linspace(0, share, n_tasks)
            dump.commit_snapshot(step=steps, collect=c + 1, scalars={"popart_sigma": sigma, "success": success})
    return path


def bench(n_tasks: int, folder: Path) -> None:
    """Making, size and opening of one page."""
    run = record(folder / f"mt{n_tasks}", n_tasks)
    start, cpu = time.perf_counter(), time.process_time()
    page = toppo_diag.report(run, out=folder / f"mt{n_tasks}.html")
    made, cpu = time.perf_counter() - start, time.process_time() - cpu
    size = len(page.html.encode()) / 1e6
    print(
        f"MT{n_tasks}: made in {made:5.1f} s ({cpu:.1f} s of CPU; at most 30), "
        f"{size:5.1f} MB (at most {LIMITS[n_tasks]:g})"
    )
    print(f"      opens in {opening(folder / f'mt{n_tasks}.html')} (at most 3 s)")


def opening(page: Path) -> str:
    """Seconds until the views in sight are drawn, medians of five: by the clock, and of the page's main thread.

    The second number hardly depends on what else the machine does.
    """
    from tests.diag.browser import launched, missing

    if (reason := missing()) is not None:
        return f"a time that was not measured: {reason}"
    with launched() as browser:
        clock, worked = [], []
        for _ in range(5):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            measuring = tab.context.new_cdp_session(tab)
            measuring.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("html[data-ready=true]")
            clock.append(time.perf_counter() - start)
            found = {m["name"]: m["value"] for m in measuring.send("Performance.getMetrics")["metrics"]}
            worked.append(found["TaskDuration"])
            tab.close()
    return f"{np.median(clock):.2f} s, {np.median(worked):.2f} s of them on its main thread"


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="*", default=list(LIMITS), choices=LIMITS)
    parser.add_argument("--keep", type=Path, help="directory for runs and pages; they are thrown away otherwise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        for n_tasks in options.tasks:
            bench(n_tasks, folder)


if __name__ == "__main__":
    main()

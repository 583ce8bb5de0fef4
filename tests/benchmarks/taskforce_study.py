"""TaskForce's sensitivity: `python -m tests.benchmarks.taskforce_study` writes figures/taskforce/study* and figure-*.

The forms of Figures 3 and 4 and of Tables 7, 9 and 10 of TaskForce's appendix, on ten thousand steps of `digits`, where
each image is moved at random. Every run is one line of study.csv. A second call makes only the runs that are missing
there, so the whole can be stopped at any time. It takes about two hours of one core; two processes with a `--seed` each
share them. `--time` measures the times of a step, on an idle machine, into study-time.csv. `--draw` trains nothing.
"""

from __future__ import annotations

import argparse

import torch

from tests.benchmarks.taskforce_pages import figure_3, figure_4, tables
from tests.benchmarks.taskforce_runs import OUT, SEEDS, Study, complete, load, measure, read_times
from toppo_diag.plots.style import paper_style


def main() -> None:
    """Train what is missing, write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draw", action="store_true", help="only draw from study.csv")
    parser.add_argument("--time", action="store_true", help="measure the times of a step again")
    parser.add_argument("--seed", type=int, action="append", choices=range(SEEDS), help="only train this seed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path, times = OUT / "study.csv", OUT / "study-time.csv"
    if asked.seed:
        complete(path, asked.seed)
        return
    if asked.time or not times.exists():
        measure(times)
    study = load() if asked.draw else Study(complete(path, range(SEEDS)), read_times(times))
    (OUT / "study.md").write_text(tables(study))
    with paper_style():
        for name, draw in {"figure-3": figure_3, "figure-4": figure_4}.items():
            draw(study).savefig(OUT / f"{name}.png")


if __name__ == "__main__":
    main()

"""What the toolkit costs: run `OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_diag` on an otherwise idle machine.

Prints the start-up times of `--help` and `info`, the time of all mechanism figures of the paper from four archives
(synthetic ones, unless --data names a folder with mean.h5, mean-ln.h5, fg.h5 and fg-ln.h5), on slabs of MT10's size the
speed and peak memory of turning them into Grams beside that of reading them alone, and on a dump of MT50's size the CPU
seconds of the commands that read it beside those of reading the same numbers with plain numpy.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

import toppo_diag
from tests.benchmarks.bench_dump import MINIBATCHES, SIZES, relu_like
from tests.diag import runs
from toppo.dump import Dump, DumpWriter, ParameterSlice, export, gram, open_dump
from toppo.dump.numerics import layer_grams
from toppo_diag.plots.names import METAWORLD
from toppo_diag.reading.dumps import layer_grams as read_layer_grams

DIAG = [sys.executable, "-c", "from toppo_diag.cli import main; main()"]
MANIFEST = Path(__file__).parents[2] / "figures" / "paper.toml"
ARCHIVES = {
    "mean": ("none", "mean"),
    "mean-ln": ("critic", "mean"),
    "fg": ("none", "fairgrad:alpha=1"),
    "fg-ln": ("critic", "fairgrad:alpha=1"),
}


def seconds(*arguments: str, repeats: int = 1) -> float:
    """Least wall time of a `toppo-diag` command."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([*DIAG, *arguments], check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return min(found)


def bench_start(run: Path) -> None:
    """--help and info."""
    print(f"toppo-diag --help          {seconds('--help', repeats=5):6.2f} s   (at most 0.5)")
    print(f"toppo-diag info            {seconds('info', str(run), repeats=5):6.2f} s   (at most 1)")


def bench_figures(folder: Path, data: Path | None) -> None:
    """Every mechanism figure of the manifest, two at a time."""
    shutil.copy(MANIFEST, folder / "paper.toml")
    if data is None:
        (folder / "data").mkdir()
        tasks = tuple(f"{name}-v3" for name in METAWORLD[:10])
        for name, (layernorm, combiner) in ARCHIVES.items():
            run = runs.record(folder / name, tasks=tasks, layernorm=layernorm, combiner=combiner, snapshots=40)
            export(run, folder / "data" / f"{name}.h5")
    else:
        (folder / "data").symlink_to(data.resolve())
    mechanism = ["figure-2", "figure-3", *(f"figure-d{n}" for n in range(1, 6))]
    taken = seconds("figures", str(folder / "paper.toml"), "--jobs", "2", "--only", ",".join(mechanism))
    print(f"all mechanism figures      {taken:6.2f} s   (at most 60, on 2 cores)")


def bench_slabs(folder: Path) -> None:
    """Grams from slabs of MT10's size."""
    size = SIZES[0]
    slabs = relu_like(size)
    with DumpWriter.create(
        folder / "dump.zarr",
        tasks=[f"task {k}" for k in range(size.tasks)],
        sides=size.sides,
        snapshots=3,
        minibatches=MINIBATCHES,
    ) as writer:
        for snapshot in range(3):
            for minibatch in range(MINIBATCHES):
                grams = {side: gram(slab) for side, slab in slabs.items()}
                writer.record_minibatch(minibatch, slabs=slabs, grams=grams, scalars={})
            writer.commit_snapshot(step=snapshot, scalars={})
    dump = open_dump(folder)
    index = [(s, m) for s in range(3) for m in range(MINIBATCHES)]
    megabytes = len(index) * slabs["critic"].nbytes / 1e6

    def read(dump: Dump) -> None:
        for s, m in index:
            dump.slab_values("critic", s, m)

    def make_grams(dump: Dump) -> None:
        read_layer_grams(dump, "critic", index)

    rates = {"reading slabs": 0.0, "Grams from slabs": 0.0}
    for _ in range(5):  # in turn, the best of each: other work on the machine slows both
        for name, work in (("reading slabs", read), ("Grams from slabs", make_grams)):
            start = time.perf_counter()
            work(dump)
            rates[name] = max(rates[name], megabytes / (time.perf_counter() - start))
    for name, rate in rates.items():
        print(f"{name:<26} {rate:6.0f} MB/s")
    ratio = rates["Grams from slabs"] / rates["reading slabs"]
    tracemalloc.start()
    make_grams(dump)
    peak = tracemalloc.get_traced_memory()[1] / slabs["critic"].nbytes
    tracemalloc.stop()
    print(f"  {ratio:.2f} of the speed of reading (at least 0.5), peak memory {peak:.2f} slabs (at most 2)")


def bench_commands(folder: Path, snapshots: int, minibatches: int) -> None:
    """CPU seconds of commands on a dump of MT50's size, without their start-up, with and without layer Grams."""
    size = SIZES[1]
    slabs = relu_like(size)
    grams = {side: gram(slab) for side, slab in slabs.items()}
    sides = {
        side: [ParameterSlice("0.weight", (P // 2,), 0), ParameterSlice("1.weight", (P - P // 2,), 0)]
        for side, P in size.sides.items()
    }
    of_layers = {side: layer_grams(slab, sides[side]) for side, slab in slabs.items()}
    for place, layers in (("with", True), ("without", False)):
        with DumpWriter.create(
            folder / place / "dump.zarr",
            tasks=METAWORLD,
            sides=sides,
            snapshots=snapshots,
            minibatches=minibatches,
            layer_grams=layers,
        ) as writer:
            for snapshot in range(snapshots):
                for minibatch in range(minibatches):
                    given = {"layer_grams": of_layers} if layers else {"grams": grams}
                    writer.record_minibatch(minibatch, slabs=slabs, scalars={}, **given)
                writer.commit_snapshot(step=snapshot)
    for side, slab in slabs.items():
        np.save(folder / f"{side}.npy", slab)
    run, older = folder / "with", folder / "without"

    def plain() -> None:
        for _ in range(snapshots * minibatches):
            for side in slabs:
                np.load(folder / f"{side}.npy")

    commands = {
        "numpy, all slabs": plain,
        "verify": lambda: toppo_diag.verify(run),
        "heatmaps": lambda: toppo_diag.heatmaps(run),
        "norms": lambda: toppo_diag.norms(run),
        "conflicts": lambda: toppo_diag.conflicts(run),
        "conflicts --layer 0": lambda: toppo_diag.conflicts(run, layer="0"),
        "conflicts, no layer Grams": lambda: toppo_diag.conflicts(older),
        "--layer 0, no layer Grams": lambda: toppo_diag.conflicts(older, layer="0"),
    }
    least = dict.fromkeys(commands, float("inf"))
    for _ in range(3):  # in turn, the best of each: other work on the machine slows all
        for name, work in commands.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    megabytes = snapshots * minibatches * sum(slab.nbytes for slab in slabs.values()) / 1e6
    print(f"a dump of MT50's size, {snapshots} snapshots of {minibatches} minibatches, {megabytes:.0f} MB of slabs")
    for name, taken in least.items():
        ratio = taken / least["numpy, all slabs"]
        print(f"  {name:<26} {taken:6.3f} CPU s   {ratio:5.2f} of reading the slabs with numpy")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four archives")
    parser.add_argument("--snapshots", type=int, default=2, help="snapshots of the dump of MT50's size, 0.7 GB each")
    options = parser.parse_args()
    np.seterr(all="raise", under="ignore")
    with tempfile.TemporaryDirectory() as folder:
        bench_start(runs.record(Path(folder) / "run"))
    with tempfile.TemporaryDirectory() as folder:
        bench_figures(Path(folder), options.data)
    with tempfile.TemporaryDirectory() as folder:
        bench_slabs(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        bench_commands(Path(folder), options.snapshots, 5)


if __name__ == "__main__":
    main()

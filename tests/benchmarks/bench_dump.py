"""What a dump costs: run `OMP_NUM_THREADS=1 python tests/benchmarks/bench_dump.py` on an otherwise idle machine.

For MT10 and MT50 sizes it prints what the training thread gives up per snapshot (wall, and its own CPU), then MB/s and
CPU s per snapshot of writing and reading the slabs: this store, raw numpy files, and h5py with and without compression.
MB are of fp32 in memory; every writer fsyncs, every reader finds its files in the page cache.

Last it prints what one `record` costs a loop that does nothing else: with and without the gradients, and for a network
so small that the wait for the disk is all of it.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from toppo.dump import DumpWriter, ParameterSlice, ScalarSpec, gram, open_dump

MINIBATCHES = 5


@dataclass(frozen=True)
class Size:
    """A benchmark's shape: K tasks and P parameters per side, and snapshots to average over."""

    name: str
    tasks: int
    sides: dict[str, int]
    snapshots: int

    @property
    def megabytes(self) -> float:
        """MB of one snapshot's slabs."""
        return 4e-6 * MINIBATCHES * self.tasks * sum(self.sides.values())


SIZES = [
    Size("MT10", 10, {"actor": 342_404, "critic": 342_401}, 6),
    Size("MT50", 50, {"actor": 358_404, "critic": 358_401}, 3),
]

Slabs = dict[str, np.ndarray]


def relu_like(size: Size) -> Slabs:
    """Gradients as ReLU networks give them: 42% exact zeros in blocks, scales that differ by task and column."""
    rng = np.random.default_rng(0)
    slabs = {}
    for side, P in size.sides.items():
        scale = 10.0 ** rng.uniform(-3, 0, (1, P)) * 10.0 ** rng.uniform(-2, 2, (size.tasks, 1))
        slab = (rng.standard_normal((size.tasks, P)) * scale).astype(np.float32)
        slab[rng.random((size.tasks, P // 32 + 1)).repeat(32, axis=1)[:, :P] < 0.42] = 0
        slabs[side] = slab
    return slabs


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall s, CPU s of the whole process) of `work`."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def line(what: str, size: Size, snapshots: int, wall: float, cpu: float, note: str = "") -> None:
    """Print one row: seconds, MB/s and CPU s per snapshot."""
    each = wall / snapshots
    print(
        f"  {what:34s} {each:7.3f} s {size.megabytes / each:8.0f} MB/s {cpu / snapshots:7.3f} CPU s  {note}", flush=True
    )


def on_disk(path: Path, snapshots: int) -> str:
    """MB on disk per snapshot."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6 / snapshots:.0f} MB on disk"


def bench_dump(size: Size, slabs: Slabs, keepbits: int | None, folder: Path) -> None:
    """This store: what the training thread gives up, the background's cost, reading."""
    path = folder / f"dump{keepbits or ''}.zarr"
    names = [f"task-{i}" for i in range(size.tasks)]
    per_task = np.ones(size.tasks)
    grams = {side: gram(slab) for side, slab in slabs.items()}
    writer = DumpWriter.create(
        path,
        tasks=names,
        sides=size.sides,
        snapshots=size.snapshots,
        minibatches=MINIBATCHES,
        keepbits=keepbits,
        minibatch_scalars={f"scalar_{i}": ScalarSpec() for i in range(16)},
        snapshot_scalars={f"state_{i}": ScalarSpec() for i in range(5)},
    )
    given_up: list[tuple[float, float]] = []
    wall = cpu = 0.0

    def snapshot(index: int) -> None:
        start, own = time.perf_counter(), time.thread_time()
        for minibatch in range(MINIBATCHES):
            writer.record_minibatch(
                minibatch, slabs=slabs, grams=grams, scalars={f"scalar_{i}": per_task for i in range(16)}
            )
        writer.commit_snapshot(step=index, scalars={f"state_{i}": per_task for i in range(5)})
        given_up.append((1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - own)))
        writer.flush()

    for index in range(size.snapshots):
        seconds = timed(lambda index=index: snapshot(index))
        wall, cpu = wall + seconds[0], cpu + seconds[1]
    closing, _ = timed(writer.close)
    label = "toppo.dump" if keepbits is None else f"toppo.dump, keepbits {keepbits}"
    line(f"write {label}", size, size.snapshots, wall, cpu, on_disk(path, size.snapshots))
    blocked, own = np.median(given_up, axis=0)
    worst = max(given_up)[0]
    buffers = [{side: slab.copy() for side, slab in slabs.items()} for _ in range(MINIBATCHES)]
    bare = [timed(lambda: [np.copyto(b[side], slabs[side]) for b in buffers for side in slabs])[0] for _ in range(5)]
    print(
        f"  training thread gives up {blocked:.1f} ms a snapshot (its CPU {own:.1f} ms; worst {worst:.1f} ms); "
        f"bare copies take {1e3 * np.median(bare):.1f} ms"
    )
    del buffers

    def stream() -> None:
        dump = open_dump(path)
        for side in dump.sides:
            for index in range(dump.n_snapshots):
                for minibatch in range(dump.n_minibatches):
                    dump.slab_values(side, index, minibatch)

    line(f"read  {label}", size, size.snapshots, *timed(stream))
    seconds, _ = timed(lambda: [open_dump(path).gram(side) for side in size.sides])
    row, _ = timed(lambda: open_dump(path).source.read("critic_grad", (0, 0, slice(3, 4), slice(None))))
    print(f"  open and read all Grams {1e3 * seconds:.0f} ms, one row {1e3 * row:.0f} ms, close {1e3 * closing:.0f} ms")


def bench_numpy(size: Size, slabs: Slabs, folder: Path) -> None:
    """One .npy per slab."""
    names = [
        (side, folder / f"{side}-{index}-{minibatch}.npy")
        for index in range(size.snapshots)
        for minibatch in range(MINIBATCHES)
        for side in slabs
    ]

    def write() -> None:
        for side, name in names:
            with name.open("wb") as file:
                np.save(file, slabs[side])
                file.flush()
                os.fsync(file.fileno())

    line("write raw numpy", size, size.snapshots, *timed(write))
    line("read  raw numpy", size, size.snapshots, *timed(lambda: [np.load(name) for _, name in names]))


def bench_h5py(size: Size, slabs: Slabs, compression: str | None, folder: Path) -> None:
    """One HDF5 file, one dataset per side."""
    path = folder / f"{compression}.h5"
    options = {} if compression is None else {"compression": "gzip", "compression_opts": 1, "shuffle": True}

    def write() -> None:
        with h5py.File(path, "w") as file:
            for side, P in size.sides.items():
                shape = (size.snapshots, MINIBATCHES, size.tasks, P)
                dataset = file.create_dataset(side, shape, "f4", chunks=(1, 1, 1, P), **options)
                for index in np.ndindex(shape[:2]):
                    dataset[index] = slabs[side]
            file.flush()
            os.fsync(file.id.get_vfd_handle())

    def read() -> None:
        with h5py.File(path) as file:
            for side in size.sides:
                for index in np.ndindex(file[side].shape[:2]):
                    file[side][index]

    label = "h5py" if compression is None else f"h5py, {compression}"
    line(f"write {label}", size, size.snapshots, *timed(write), on_disk(path, size.snapshots))
    line(f"read  {label}", size, size.snapshots, *timed(read))


RECORDS = [  # what, P, records, seconds between commits, gradients kept
    ("10 x 100k", 100_000, 30, 0.0, True),
    ("10 x 100k, Grams by layer alone", 100_000, 30, 0.0, False),
    ("10 x 1M", 1_000_000, 8, 0.0, True),
    ("10 x 1M, Grams by layer alone", 1_000_000, 8, 0.0, False),
    ("10 x 2k, every step", 2_000, 1000, 0.0, True),
    ("10 x 2k, every step, commits in groups", 2_000, 1000, 5.0, True),
    ("10 x 2k, every step, Grams alone", 2_000, 1000, 0.0, False),
]


def bench_records(folder: Path) -> None:
    """One `record` of ten tasks, in a loop that does nothing else."""
    print("one record: wall of the training thread (median, 99 %), its CPU, CPU of the process, all in ms")
    for n, (what, P, records, commit_every, slabs) in enumerate(RECORDS):
        layers = [ParameterSlice(f"layer{i}", (P // 8,)) for i in range(8)]
        for kind in ("dense", "ReLU"):
            J = relu_like(Size("", 10, {"t": P}, 1))["t"]
            if kind == "dense":
                J = np.random.default_rng(0).standard_normal(J.shape).astype(np.float32)
            writer = DumpWriter.create(
                folder / f"{n}-{kind}.zarr",
                tasks=[f"task-{i}" for i in range(10)],
                sides={"t": layers},
                slabs=slabs,
                layer_grams=not slabs,
                commit_every=commit_every,
            )
            walls, own = [], 0.0
            loss = np.ones(10)
            started = time.process_time()
            for step in range(records):
                wall, cpu = time.perf_counter(), time.thread_time()
                writer.record(step=step, t=J, loss=loss)
                walls.append(1e3 * (time.perf_counter() - wall))
                own += time.thread_time() - cpu
            writer.close()
            each = 1e3 * (time.process_time() - started) / records
            low, high = np.percentile(walls[1:], [50, 99])
            size = sum(file.stat().st_size for file in Path(writer.path).rglob("*") if file.is_file()) / records
            costs = f"{low:7.2f} {high:7.1f} {1e3 * own / records:7.2f} {each:7.2f}"
            print(f"  {what:40s} {kind:5s} {costs}  {size / 1e3:6.0f} kB on disk")


def main() -> None:
    """Run the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*(size.name for size in SIZES), "records"]
    parser.add_argument("--size", choices=names, help="one size only, or the cost of one record only")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary directory)")
    options = parser.parse_args()
    for size in SIZES:
        if options.size not in (None, size.name):
            continue
        print(f"{size.name}: K={size.tasks}, P={size.sides}, M={MINIBATCHES}, {size.megabytes:.0f} MB a snapshot")
        slabs = relu_like(size)
        benches: list[Callable[[Path], None]] = [
            partial(bench_dump, size, slabs, None),
            partial(bench_dump, size, slabs, 12),
            partial(bench_numpy, size, slabs),
            partial(bench_h5py, size, slabs, None),
            partial(bench_h5py, size, slabs, "gzip 1"),
        ]
        for bench in benches:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                bench(Path(folder))
        print(f"  peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    if options.size in (None, "records"):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            bench_records(Path(folder))


if __name__ == "__main__":
    main()

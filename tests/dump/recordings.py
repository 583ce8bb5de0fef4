"""A small run with known content, recorded and checked by many tests and by the process that gets killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toppo.dump import ENV_STEPS, Dump, DumpWriter, ParameterSlice, ScalarSpec, gram

TASKS = ["reach", "push", "drawer-open"]
SIDES = {"actor": [ParameterSlice("0.weight", (4, 5)), ParameterSlice("0.bias", (4,))], "critic": 33}
WIDTHS = {"actor": 24, "critic": 33}
MINIBATCHES = 2
ENTRIES = 4
MINIBATCH_SCALARS = {
    "loss": ScalarSpec(("task",), "f8", "1", "per-task loss"),
    "iterations": ScalarSpec((), "i8", "1", "solver iterations"),
    "order": ScalarSpec(("task", "other"), "i4", "1", "combiner order"),
}
SNAPSHOT_SCALARS = {"popart_sigma": ScalarSpec(("task",), "f8", "return", "PopArt scale")}


def create(path: Path | str, snapshots: int | None = 6, **changes: object) -> DumpWriter:
    """A writer for this run."""
    arguments: dict = {
        "tasks": TASKS,
        "sides": SIDES,
        "snapshots": snapshots,
        "minibatches": MINIBATCHES,
        "attrs": {"seed": 7, "config": {"lr": 3e-4, "name": "small"}},
        "stream": (snapshots, ENTRIES),
        "minibatch_scalars": MINIBATCH_SCALARS,
        "snapshot_scalars": SNAPSHOT_SCALARS,
        "step": ENV_STEPS,
    }
    return DumpWriter.create(path, **arguments | changes)


def slab(side: str, snapshot: int, minibatch: int) -> np.ndarray:
    """J (K, P), different for each place in the run, with some exact zeros."""
    rng = np.random.default_rng([len(side), snapshot, minibatch])
    values = rng.standard_normal((len(TASKS), WIDTHS[side])).astype(np.float32)
    values[:, ::3] = 0
    return values


def grams(collect: int) -> np.ndarray:
    """Grams (n, K, K) of one collect of the stream."""
    return np.random.default_rng(collect).standard_normal((ENTRIES, len(TASKS), len(TASKS)))


def record_minibatch(writer: DumpWriter, snapshot: int, minibatch: int, slabs: bool = True) -> None:
    """Record one minibatch."""
    given = {side: slab(side, snapshot, minibatch) for side in WIDTHS}
    writer.record_minibatch(
        minibatch,
        slabs=given if slabs else None,
        grams={side: gram(values) for side, values in given.items()},
        scalars={
            "loss": np.arange(3) + snapshot + 0.5 * minibatch,
            "iterations": 10 * snapshot + minibatch,
            "order": np.array([[1, 2], [0, 2], [0, 1]]),
        },
    )


def record_snapshot(writer: DumpWriter, snapshot: int, slabs: bool = True, stream: bool = True) -> None:
    """Record one collect: its part of the stream, then the whole snapshot."""
    if stream:
        writer.record_stream(snapshot, grams={side: grams(snapshot) for side in WIDTHS}, step=1000 * snapshot)
    for minibatch in range(MINIBATCHES):
        record_minibatch(writer, snapshot, minibatch, slabs)
    writer.commit_snapshot(step=1000 * snapshot, collect=snapshot, scalars={"popart_sigma": np.full(3, 1.0 + snapshot)})


def record_run(path: Path | str, snapshots: int = 6, **changes: object) -> None:
    """Record a whole run, to its end."""
    with create(path, **{"snapshots": snapshots} | changes) as writer:
        for snapshot in range(snapshots):
            record_snapshot(writer, snapshot, changes.get("slabs", True))


def assert_content(dump: Dump, first: int = 0) -> None:
    """Assert that every committed snapshot and collect, from `first` on, is what was recorded."""
    for snapshot in range(first, dump.n_snapshots):
        for minibatch in range(MINIBATCHES):
            for side in WIDTHS:
                values = slab(side, snapshot, minibatch)
                np.testing.assert_array_equal(dump.slab_values(side, snapshot, minibatch), values)
                at = (slice(snapshot, snapshot + 1), *(slice(None),) * 3)
                np.testing.assert_array_equal(dump.source.read(f"{side}_gram", at)[0, minibatch], gram(values))
        assert dump.source.read("env_steps", (snapshot,)) == 1000 * snapshot
        assert dump.source.read("iterations", (snapshot, 1)) == 10 * snapshot + 1
        sigma = dump.source.read("popart_sigma", (snapshot, slice(None)))
        np.testing.assert_array_equal(sigma, np.full(3, 1.0 + snapshot))
    for collect in range(first, dump.n_stream):
        entries = dump.source.read("critic_gram_stream", (collect, *(slice(None),) * 3))
        np.testing.assert_array_equal(entries, grams(collect))


def tree(path: Path) -> dict[str, bytes]:
    """Relative name -> content, for every file of a directory."""
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}

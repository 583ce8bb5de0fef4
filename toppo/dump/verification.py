"""Checking a dump against itself: metadata, counts, checksums, holes, and Grams against their slabs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toppo.common.errors import ToppoError
from toppo.common.jsonl import parse
from toppo.dump import numerics
from toppo.dump.errors import DumpError
from toppo.dump.logs import config_differences, of_trainer, run_logs
from toppo.dump.opening import open_dump
from toppo.dump.reader import Dump
from toppo.dump.schema import ArraySpec

Progress = Callable[[int, int], object]
"""Called with (steps done, steps in all)."""

GAP = 100
"""How many damaged steps in a row end the check of an array."""

_UNDERFLOW = float(np.finfo(np.float32).tiny)
"""A Gram accumulated in fp32 loses products below this number. So a smaller difference does not count."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        array: name of the array, zarr.json for the metadata, or a file of the run such as config.toml.
        what: what is wrong with it.
        snapshot: index of the snapshot (in a Gram stream, of the collect); None if no single one is damaged.
        minibatch: index of the minibatch; None if no single one is damaged.
        task: name of the task; None if no single one is damaged.
    """

    array: str
    what: str
    snapshot: int | None = None
    minibatch: int | None = None
    task: str | None = None

    def __str__(self) -> str:
        step = "collect" if "stream" in self.array else "snapshot"
        places = ((step, self.snapshot), ("minibatch", self.minibatch), ("task", self.task))
        return ", ".join([self.array, *(f"{name} {at}" for name, at in places if at is not None)]) + f": {self.what}"


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        path: path or URL of the dump.
        n_snapshots: how many snapshots are committed; all of them were checked.
        n_stream: how many collects of the Gram stream are committed; all of them were checked.
        complete: whether the run ended and the dump was closed.
        slabs: how many Grams were recomputed from their slab.
        gram_error: the largest |G_ij - (J J')_ij| / sqrt(G_ii G_jj) of the Grams that passed.
        gram_tolerance: the largest error that passes.
        damages: what is wrong; empty for a sound dump.
        notes: lines that are worth knowing, about things that are not wrong.
    """

    path: str
    n_snapshots: int
    n_stream: int
    complete: bool
    slabs: int
    gram_error: float
    gram_tolerance: float
    damages: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages

    def lines(self) -> list[str]:
        """One line per damage, one per note, and a last line that sums up."""
        error = f"worst difference {self.gram_error:.1e}, tolerance {self.gram_tolerance:.1e}"
        grams = f"{self.slabs} Grams recomputed from slabs ({error})"
        verdict = "sound" if self.ok else f"{len(self.damages)} damaged"
        return [
            *(f"damaged: {damage}" for damage in self.damages),
            *(f"note: {note}" for note in self.notes),
            f"{self.path}: {verdict}; {self.n_snapshots} snapshots, {self.n_stream} stream collects, "
            f"{grams if self.slabs else 'no slabs to recompute Grams from'}",
        ]


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> Report:
    """A report of everything that is wrong with a dump. All that is committed is read and checked:

    - Every chunk exists and matches its checksum, and so do the metadata.
    - Every chunk and every snapshot is in the place where it was committed (not in dumps of version 1).
    - Coordinates are what the header says.
    - A row of a slab (the gradients J) is finite exactly where it was flagged as finite.
    - Each Gram is that of its slab, within `Report.gram_tolerance`.
    - The configuration beside the dump is that in the dump, and no line of the run's logs was changed.

    Args:
        path: whatever `open_dump` takes.
        progress: called with (steps done, steps in all) as the work goes on.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: the dump cannot be opened at all.
    """
    dump = open_dump(path)
    check = _Check(dump)
    steps = dump.n_snapshots + 1
    for done, _ in enumerate(check.run(), start=1):
        if progress is not None:
            progress(done, steps)
    return Report(
        path=dump.path,
        n_snapshots=dump.n_snapshots,
        n_stream=dump.n_stream,
        complete=dump.complete,
        slabs=check.slabs,
        gram_error=check.gram_error,
        gram_tolerance=dump.source.header.layout.gram_tolerance,
        damages=tuple(check.damages),
        notes=tuple(check.notes),
    )


class _Check:
    """One verification under way.

    Args:
        dump: what to check.
    """

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.damages: list[Damage] = []
        self.notes: list[str] = []
        self.slabs = 0
        self.gram_error = 0.0
        self._odd_values: dict[str, int] = {}

    def run(self) -> Iterator[None]:
        """Check everything. Yields after the metadata and after each snapshot."""
        source = self.dump.source
        self.damages += [Damage(array, what) for array, what in source.damaged_metadata()]
        for array, step, what in source.bindings():
            self.damages.append(Damage(array, self._reason(DumpError(what)), step))
            if step is not None and self._ends(array, step):
                break
        if source.header.version == 1 and source.kind == "dump":
            self.notes.append("of version 1: nothing in it tells that its chunks and snapshots lie in their places")
        self._run_files()
        self.notes += source.leftovers()
        if not self.dump.complete:
            self.notes.append("not complete: the run is being written or was interrupted")
        if self.dump.n_snapshots == 0:
            self.notes.append("holds no snapshot yet")
        sound = {}
        for name, spec in source.specs.items():
            try:
                source.open(name)
                sound[name] = spec
            except DumpError as error:
                self.damages.append(Damage(name, self._reason(error)))
        for name, spec in sound.items():
            if spec.steps == 0:
                self._coordinate(name, spec)
            elif spec.dims[0] == "stream_collect":
                for collect in range(self.dump.n_stream):
                    if self._read(name, spec, collect) is None and self._ends(name, collect):
                        break
        yield
        for snapshot in range(self.dump.n_snapshots):
            if self._ends("env_steps", snapshot - 1):
                break
            values = {
                name: self._read(name, spec, snapshot)
                for name, spec in sound.items()
                if spec.steps == 1 and spec.dims[0] == "snapshot"
            }
            for side in self.dump.sides:
                gram, finite = values.get(f"{side}_gram"), values.get(f"{side}_finite")
                for minibatch in range(self.dump.n_minibatches):
                    self._minibatch(
                        side,
                        snapshot,
                        minibatch,
                        None if gram is None else gram[minibatch],
                        None if finite is None else finite[minibatch],
                        with_slab=f"{side}_grad" in sound,
                    )
            yield
        self._steps("env_steps", sound)
        self._steps("stream_env_steps", sound)
        self.notes += [
            f"{name}: {count} values are not finite, as recorded" for name, count in self._odd_values.items()
        ]

    def _run_files(self) -> None:
        """Compare what the trainer wrote beside the dump. The files of other programs are left alone."""
        try:
            logs = run_logs(self.dump.path)
        except DumpError as error:
            if self.dump.source.kind == "dump":  # an archive's metadata have told it
                self.damages.append(Damage("run", self._reason(error)))
            return
        config = logs.pop("config.toml", None)
        if config is None or not of_trainer(self.dump.attrs):
            return
        self.damages += [Damage("config.toml", what) for what in config_differences(config, self.dump.attrs)]
        for name, text in logs.items():
            try:
                parse(text, name)
            except ToppoError as error:
                self.damages.append(Damage(name, str(error).removeprefix(f"{name}, ")))

    def _ends(self, name: str, step: int) -> bool:
        """Whether an array has been missing for `GAP` steps in a row, which is then one more damage.

        A header may count millions of steps that nobody wrote, and to name each would take hours.
        """
        lost = {damage.snapshot for damage in self.damages if damage.array == name}
        if step < GAP - 1 or not lost.issuperset(range(step - GAP + 1, step + 1)):
            return False
        self.damages.append(Damage(name, f"damaged for {GAP} steps in a row; the rest was not looked at", step))
        return True

    def _reason(self, error: DumpError) -> str:
        """What is wrong, without the dump's path and without the advice to run this very check."""
        text = str(error).removeprefix(f"{self.dump.path}: ").removesuffix("; see `toppo-diag verify`")
        _, unreadable, reason = text.partition("cannot be read")
        return unreadable + reason if unreadable else text

    def _read(self, name: str, spec: ArraySpec, step: int) -> npt.NDArray[np.float64] | None:
        index = (slice(step, step + 1), *(slice(None),) * (len(spec.dims) - 1))
        try:
            values = self.dump.source.read(name, index)[0]
        except DumpError as error:
            self.damages.append(Damage(name, self._reason(error), step))
            return None
        odd = int(np.size(values) - np.isfinite(values).sum())
        if odd and not name.endswith("_gram"):  # in a Gram, the flagged rows explain these values
            self._odd_values[name] = self._odd_values.get(name, 0) + odd
        return np.asarray(values)

    def _coordinate(self, name: str, spec: ArraySpec) -> None:
        try:
            values = self.dump.values(name)
        except DumpError as error:
            self.damages.append(Damage(name, self._reason(error)))
            return
        if values.tolist() != self.dump.source.header.layout.coordinate(spec):
            self.damages.append(Damage(name, f"does not hold the header's {name} values"))

    def _steps(self, name: str, sound: dict[str, ArraySpec]) -> None:
        if name in sound and not any(damage.array == name for damage in self.damages):
            steps = self.dump.values(name)
            for at in np.flatnonzero(np.diff(steps) < 0):
                self.notes.append(f"{name} falls from {steps[at]} to {steps[at + 1]}, as recorded")

    def _minibatch(
        self,
        side: str,
        snapshot: int,
        minibatch: int,
        gram: npt.NDArray[np.float64] | None,
        flags: npt.NDArray[np.float64] | None,
        *,
        with_slab: bool,
    ) -> None:
        tasks = self.dump.tasks
        if flags is not None:
            for task in np.flatnonzero(flags == 0):
                where = f"snapshot {snapshot}, minibatch {minibatch}, task {tasks[task]}"
                self.notes.append(f"{side}_grad, {where}: recorded with values that are not finite")
            for task in np.flatnonzero((flags != 0) & (flags != 1)):
                self.damages.append(
                    Damage(f"{side}_finite", f"flag is {flags[task]}", snapshot, minibatch, tasks[task])
                )
        finite = np.ones(len(tasks), bool) if flags is None else flags == 1
        if gram is not None:
            for task in np.flatnonzero(finite & ~(np.diagonal(gram) >= 0)):
                what = f"squared norm is {gram[task, task]}, though the gradient was recorded as finite"
                self.damages.append(Damage(f"{side}_gram", what, snapshot, minibatch, tasks[task]))
        if not with_slab:
            return
        slab, readable = self._slab(side, snapshot, minibatch)
        actual = numerics.finite_rows(slab) == 1
        if flags is not None:
            for task in np.flatnonzero(readable & (actual != finite)):
                what = (
                    "finite, though flagged as not" if actual[task] else "not finite, though recorded as finite: a hole"
                )
                self.damages.append(Damage(f"{side}_grad", what, snapshot, minibatch, tasks[task]))
        if gram is not None:
            self._compare(side, snapshot, minibatch, gram, slab, readable & actual & finite)

    def _slab(self, side: str, snapshot: int, minibatch: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The slab, and which of its rows could be read. Each row that could not be read is a damage."""
        tasks = self.dump.tasks
        try:
            return self.dump.slab_values(side, snapshot, minibatch), np.ones(len(tasks), bool)
        except DumpError:
            pass  # read row by row below, to name the damaged tasks
        name = f"{side}_grad"
        slab = np.zeros(self.dump.source.specs[name].shape[2:], np.float32)
        readable = np.zeros(len(tasks), bool)
        reasons = []
        for task in range(len(tasks)):
            try:
                index = (snapshot, minibatch, slice(task, task + 1), slice(None))
                slab[task] = self.dump.source.read(name, index)[0]
                readable[task] = True
            except DumpError as error:
                reasons.append((task, self._reason(error)))
        if len(reasons) == len(tasks):
            self.damages.append(Damage(name, f"every task: {reasons[0][1]}", snapshot, minibatch))
        else:
            self.damages += [Damage(name, reason, snapshot, minibatch, tasks[task]) for task, reason in reasons]
        return slab, readable

    def _compare(
        self,
        side: str,
        snapshot: int,
        minibatch: int,
        gram: npt.NDArray[np.float64],
        slab: npt.NDArray[np.float32],
        rows: npt.NDArray[np.bool_],
    ) -> None:
        kept = np.flatnonzero(rows)
        recomputed = numerics.gram(slab if rows.all() else slab[kept])
        norms = np.sqrt(np.diagonal(recomputed))
        difference = np.abs(gram[np.ix_(kept, kept)] - recomputed)
        difference[difference < _UNDERFLOW] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(difference == 0, 0.0, difference / np.outer(norms, norms))
        self.slabs += 1
        worst = float(error.max(initial=0.0))
        if worst <= self.dump.source.header.layout.gram_tolerance:
            self.gram_error = max(self.gram_error, worst)
            return
        i, j = (
            kept[k] for k in np.unravel_index(int(np.nanargmax(error)) if not np.isnan(error).all() else 0, error.shape)
        )
        names = self.dump.tasks
        what = f"differs from the Gram of the slab by {worst:.1e} |g_i| |g_j| at {names[i]}, {names[j]}"
        self.damages.append(Damage(f"{side}_gram", what, snapshot, minibatch))

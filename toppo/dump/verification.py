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
from toppo.dump.schema import ABSENT, ArraySpec

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
    - The Grams of the layers of a side sum to its Gram, and each is that of its slab, within the same tolerance.
    - A task that took no part in a minibatch has no gradient and no Gram there.
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


@dataclass(frozen=True)
class _Recorded:
    """What was recorded of one side in one minibatch; None for what is not kept or cannot be read.

    Attributes:
        gram: G (K, K).
        layer_gram: G of each layer (L, K, K).
        finite: (K,) flags.
        present: (K,) flags.
    """

    gram: npt.NDArray[np.float64] | None
    layer_gram: npt.NDArray[np.float64] | None
    finite: npt.NDArray[np.float64] | None
    present: npt.NDArray[np.float64] | None


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
        self._odd_gradients: dict[tuple[str, str], list[tuple[int, int]]] = {}  # (side, task) -> (snapshot, minibatch)

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
            if self._ends(source.header.layout.step.name, snapshot - 1):
                break
            values = {
                name: self._read(name, spec, snapshot)
                for name, spec in sound.items()
                if spec.steps == 1 and spec.dims[0] == "snapshot"
            }
            for side in self.dump.sides:
                names = (f"{side}_gram", f"{side}_layer_gram", f"{side}_finite", "present")
                for minibatch in range(self.dump.n_minibatches):
                    recorded = _Recorded(*(None if (of := values.get(n)) is None else of[minibatch] for n in names))
                    self._minibatch(side, snapshot, minibatch, recorded, f"{side}_grad" in sound)
            yield
        self._steps(source.header.layout.step.name, sound)
        self._steps(source.header.layout.stream_step, sound)
        self.notes += [
            f"{name}: {count} values are not finite, as recorded" for name, count in self._odd_values.items()
        ]
        for (side, task), places in self._odd_gradients.items():
            where = "snapshot {}, minibatch {}".format(*places[0])
            times = f"in {len(places):,} minibatches, first in {where}" if len(places) > 1 else f"in {where}"
            self.notes.append(f"{side} gradient of {task}: not finite {times}, as recorded")

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
        if step < self.dump.source.header.layout.late.get(name, 0):
            return None  # declared later
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

    def _minibatch(self, side: str, snapshot: int, minibatch: int, recorded: _Recorded, with_slab: bool) -> None:
        tasks = self.dump.tasks
        place = (snapshot, minibatch)
        gram, flags = recorded.gram, recorded.finite
        absent = np.zeros(len(tasks), bool) if recorded.present is None else recorded.present == 0
        if flags is not None:
            for task in np.flatnonzero(flags == 0):
                self._odd_gradients.setdefault((side, tasks[task]), []).append(place)
            allowed = np.where(absent, flags == ABSENT, (flags == 0) | (flags == 1))
            for task in np.flatnonzero(~allowed):
                what = f"flag is {flags[task]}{', though the task was absent' if absent[task] else ''}"
                self.damages.append(Damage(f"{side}_finite", what, *place, tasks[task]))
        finite = ~absent if flags is None else flags == 1
        for name, G in ((f"{side}_gram", gram), (f"{side}_layer_gram", recorded.layer_gram)):
            if G is None:
                continue
            diagonal = np.diagonal(G, axis1=-2, axis2=-1).reshape(-1, len(tasks))
            for task in np.flatnonzero(finite & ~(diagonal >= 0).all(axis=0)):
                worst = diagonal[~(diagonal[:, task] >= 0), task][0]
                what = f"squared norm is {worst}, though the gradient was recorded as finite"
                self.damages.append(Damage(name, what, *place, tasks[task]))
            for task in np.flatnonzero(absent & ~np.isnan(diagonal).all(axis=0)):
                self.damages.append(Damage(name, "holds a number, though the task was absent", *place, tasks[task]))
        kept = np.flatnonzero(finite)
        if recorded.layer_gram is not None and gram is not None:
            whole = recorded.layer_gram.sum(axis=0)
            self._compare(f"{side}_layer_gram", "sum to a Gram that differs from the side's", place, gram, whole, kept)
        if not with_slab:
            return
        slab, readable = self._slab(side, snapshot, minibatch)
        actual = numerics.finite_rows(slab) == 1
        if flags is not None:
            for task in np.flatnonzero(readable & (actual != finite)):
                what = (
                    "finite, though flagged as not" if actual[task] else "not finite, though recorded as finite: a hole"
                )
                if absent[task]:
                    what = "holds a gradient, though the task was absent"
                self.damages.append(Damage(f"{side}_grad", what, *place, tasks[task]))
        kept = np.flatnonzero(readable & actual & finite)
        if gram is not None:
            self.slabs += 1
            self._compare(f"{side}_gram", "differs from the Gram of the slab", place, gram, numerics.gram(slab), kept)
        if recorded.layer_gram is not None:
            layers = self.dump.parameters(side)
            for layer, given, computed in zip(
                layers, recorded.layer_gram, numerics.layer_grams(slab, layers), strict=True
            ):
                what = f"of {layer.name} differs from the Gram of the slab"
                self._compare(f"{side}_layer_gram", what, place, given, computed, kept)

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
        array: str,
        what: str,
        place: tuple[int, int],
        gram: npt.NDArray[np.float64],
        computed: npt.NDArray[np.float64],
        kept: npt.NDArray[np.intp],
    ) -> None:
        """Compare a recorded Gram with a computed one, in the rows and columns `kept`."""
        gram, computed = (G[np.ix_(kept, kept)] for G in (gram, computed))
        norms = np.sqrt(np.diagonal(computed))
        difference = np.abs(gram - computed)
        difference[difference < _UNDERFLOW] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(difference == 0, 0.0, difference / np.outer(norms, norms))
        worst = float(error.max(initial=0.0))
        if worst <= self.dump.source.header.layout.gram_tolerance:
            self.gram_error = max(self.gram_error, worst)
            return
        i, j = (
            kept[k] for k in np.unravel_index(int(np.nanargmax(error)) if not np.isnan(error).all() else 0, error.shape)
        )
        names = self.dump.tasks
        self.damages.append(Damage(array, f"{what} by {worst:.1e} |g_i| |g_j| at {names[i]}, {names[j]}", *place))

"""Reads from a dump the Grams of a figure: of some snapshots and tasks, and of a whole side or one layer.

A side is a named group of shared parameters. A snapshot is what was dumped at one collect (rollout phase). A slab is
the (K, P) matrix J of per-task gradients of one minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners.blas import single_thread
from toppo.dump import ENV_STEPS, Dump, DumpError, StepAxis, gram, open_dump
from toppo_diag.analysis.stages import choose_snapshots
from toppo_diag.analysis.tasks import resolve
from toppo_diag.errors import DiagnosticError, UsageError, bad_option
from toppo_diag.reading.progress import progress
from toppo_diag.reading.schedulers import map_on
from toppo_diag.request import Request


@dataclass(frozen=True)
class Grams:
    """N Grams of one side of a dump, and where each was taken.

    Attributes:
        tasks: K names.
        values: G, (N, K, K) float64, in squared units of the gradients; 0 in rows and columns of tasks
            that are not known: they were absent, or their gradient is not finite.
        step: what the steps are.
        env_steps: steps at each Gram, (N,).
        snapshot: index of the snapshot in the dump; for the Gram stream, index of the collect, (N,).
        minibatch: index of the minibatch in the snapshot; for the Gram stream, index of the entry in the collect, (N,).
        stages: label of each snapshot by its index, in the order asked for: a stage, or "snapshot 3".
        beside: what was recorded with each Gram, by name, (N, ...), with the same tasks as in `values`.
        known: whether each task is known in each Gram, (N, K); None where all are.
        dropped: how many Grams without any known task were left out, see `some_known`.
    """

    tasks: tuple[str, ...]
    values: Float[np.ndarray, "N K K"]
    step: StepAxis
    env_steps: Int[np.ndarray, "N"]
    snapshot: Int[np.ndarray, "N"]
    minibatch: Int[np.ndarray, "N"]
    stages: dict[int, str]
    beside: dict[str, np.ndarray]
    known: Bool[np.ndarray, "N K"] | None = None
    dropped: int = 0

    def some_known(self) -> Grams:
        """The same without the Grams in which no task is known."""
        if self.known is None or self.known.any(axis=1).all():
            return self
        good = self.known.any(axis=1)
        return replace(
            self,
            **{name: getattr(self, name)[good] for name in ("values", "env_steps", "snapshot", "minibatch", "known")},
            beside={name: value[good] for name, value in self.beside.items()},
            dropped=int(np.sum(~good)),
        )

    def known_of(self, members: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n K"] | None:
        """Whether each task is known in some of the Grams; None where all are in all."""
        return None if self.known is None else self.known[members]

    def within(self, snapshot: int) -> Int[np.ndarray, "n"]:
        """The indices of the Grams of a snapshot."""
        return np.flatnonzero(self.snapshot == snapshot)

    def where(self, n: int) -> dict[str, int]:
        """Where Gram n was taken, as the first columns of a table."""
        return {
            self.step.name: int(self.env_steps[n]),
            "snapshot": int(self.snapshot[n]),
            "minibatch": int(self.minibatch[n]),
        }


def require_snapshots(dump: Dump) -> None:
    """Check that a dump holds a snapshot.

    Raises:
        DumpError: it holds none yet.
    """
    if not dump.n_snapshots:
        first = "record a longer run" if dump.complete else "wait for the run's first one"
        mend = first + (", or train with `dump_every`" if dump.step == ENV_STEPS else "")
        raise DumpError(f"{dump.path}: holds no snapshot{'' if dump.complete else ' yet'}; {mend}")


def chosen_snapshots(dump: Dump, request: Request, default: Sequence[str] = ()) -> dict[int, str]:
    """The label of each snapshot that a request chooses, by index. Without a choice, those of `default`, or all.

    Raises:
        DumpError: the dump has no snapshot.
        UsageError: no such stage, index or step.
    """
    require_snapshots(dump)
    stage = request.stage or (() if request.chooses_snapshots else tuple(default))
    steps = dump.steps  # a damaged one says so itself
    try:
        return choose_snapshots(steps, stage, request.snapshot, request.steps, paper=dump.step == ENV_STEPS)
    except ValueError as error:
        raise UsageError(f"{dump.path}: {error}") from None


def chosen_minibatches(dump: Dump, request: Request) -> list[int]:
    """The minibatches of each snapshot that a request chooses; without a choice, all.

    Raises:
        UsageError: no such minibatch.
    """
    n, chosen = dump.n_minibatches, request.minibatch
    if chosen is None:
        return list(range(n))
    if not -n <= chosen < n:
        held = f"a snapshot of {dump.path} holds {n} minibatches, counted from 0"
        raise bad_option("minibatch", str(chosen), held)
    return [chosen % n]


def chosen_tasks(dump: Dump, request: Request) -> list[int]:
    """Indices of the tasks to keep, in the order asked for.

    Raises:
        UsageError: the dump does not have one of the tasks, or one is named twice.
    """
    return resolve(request.tasks, dump.tasks, dump.path)


def layer_tensors(dump: Dump, side: str, layer: str) -> tuple[int, ...]:
    """Indices of the tensors of a layer: of the one with this name, or of all that are named "<layer>.<...>".

    Raises:
        DumpError: no such side.
        UsageError: no such layer.
    """

    def of(side: str) -> tuple[int, ...]:
        names = dump.layer_names(side)
        return tuple(i for i, name in enumerate(names) if name == layer or name.startswith(f"{layer}."))

    if not (found := of(side)):
        other = next((name for name in dump.sides if of(name)), None)
        mend = f"`side={other}` has it" if other else f"it has {', '.join(dump.layer_names(side))}"
        raise bad_option("layer", layer, f"side {side!r} of {dump.path} has no such layer; {mend}")
    return found


def read_grams(dump: Dump, side: str, request: Request, default: Sequence[str] = ()) -> Grams:
    """The Grams of the dumped minibatches that the request asks for.

    Args:
        dump: the dump to read.
        side: the side to read.
        request: snapshots, minibatch, tasks, layer and scheduler.
        default: the stages to take if the request chooses no snapshots; () for all snapshots.

    Raises:
        DumpError: the dump does not hold what is asked for.
        UsageError: no such side, stage, snapshot, minibatch, task or layer.
        DiagnosticError: none of these Grams is finite.
    """
    dump.parameters(side)
    stages = chosen_snapshots(dump, request, default)
    index = [(s, m) for s in stages for m in chosen_minibatches(dump, request)]
    at = np.array(index)
    if request.layer is None:
        values = dump.values(f"{side}_gram")[at[:, 0], at[:, 1]]
    else:
        tensors = layer_tensors(dump, side, request.layer)
        values = layer_grams(dump, side, index, request.scheduler)[:, list(tensors)].sum(axis=1)
    kept = chosen_tasks(dump, request)
    beside = {}
    for name, spec in dump.source.specs.items():
        # What a trainer recorded for each snapshot or minibatch; not the store's own arrays.
        per_minibatch = spec.dims[:2] == ("snapshot", "minibatch")
        if not (spec.dims[:1] == ("snapshot",) and set(spec.dims[1:]) <= {"minibatch", "task", "other"}):
            continue
        recorded = dump.values(name)
        recorded = recorded[at[:, 0], at[:, 1]] if per_minibatch else recorded[at[:, 0]]
        if spec.dims[-1] == "task":
            recorded = recorded[:, kept]
        beside[name] = recorded
    grams = Grams(
        tasks=tuple(dump.tasks[i] for i in kept),
        values=values[:, kept][:, :, kept],
        step=dump.step,
        env_steps=dump.steps[at[:, 0]],
        snapshot=at[:, 0],
        minibatch=at[:, 1],
        stages=stages,
        beside=beside,
    )
    return _known(grams, dump, side)


@dataclass(frozen=True)
class LayerGrams:
    """The Grams of every layer (named tensor) of a side, at N dumped minibatches.

    Attributes:
        env_steps: steps at each minibatch, (N,).
        snapshot: index of the snapshot of each minibatch, (N,).
        values: G of the columns of each layer, by its name, (N, K, K). Their sum is the Gram of the side.
        all_snapshots: whether these are all snapshots of the dump.
    """

    env_steps: Int[np.ndarray, "N"]
    snapshot: Int[np.ndarray, "N"]
    values: dict[str, Float[np.ndarray, "N K K"]]
    all_snapshots: bool

    @property
    def n_snapshots(self) -> int:
        """How many snapshots the minibatches belong to."""
        return len(np.unique(self.snapshot))


def read_layers(dump: Dump, side: str, request: Request, default: Sequence[str] = ()) -> LayerGrams | None:
    """The Grams of every layer of a side; None where the dump has no snapshot, or cannot give layers.

    Args:
        dump: the dump to read.
        side: the side to read.
        request: snapshots, minibatch, tasks and scheduler.
        default: the stages to take if the request chooses no snapshots, and slabs have to be read.

    Raises:
        DumpError: the dump is damaged, or no such side.
        UsageError: no such stage, snapshot or task.
    """
    if not dump.has_layers(side) or not dump.n_snapshots:
        return None
    cheap = f"{side}_layer_gram" in dump
    chosen = chosen_snapshots(dump, request, () if cheap else default)
    index = [(n, m) for n in chosen for m in chosen_minibatches(dump, request)]
    found = layer_grams(dump, side, index, request.scheduler)
    kept = chosen_tasks(dump, request)
    found = found[:, :, kept][:, :, :, kept]
    known = known_block(found.sum(axis=1))[1]  # a task that is not finite in one layer is not known in any
    found = np.where((known[:, :, None] & known[:, None, :])[:, None], found, 0.0)
    good = known.any(axis=1)
    at = np.array(index)[good]
    return LayerGrams(
        env_steps=dump.steps[at[:, 0]],
        snapshot=at[:, 0],
        values={name: found[good, n] for n, name in enumerate(dump.layer_names(side))},
        all_snapshots=len(chosen) == dump.n_snapshots,
    )


def read_stream(dump: Dump, side: str, request: Request) -> Grams:
    """The Grams of the Gram stream, which holds some Grams of every collect.

    If the dump has no stream, or the request asks for snapshots, a minibatch or a layer, these are the Grams of
    `read_grams`.
    """
    if request.chooses_snapshots or request.minibatch is not None or request.layer or not dump.n_stream:
        return read_grams(dump, side, request)
    dump.parameters(side)
    stream = dump.values(f"{side}_gram_stream")
    collects, entries = stream.shape[:2]
    kept = chosen_tasks(dump, request)
    grams = Grams(
        tasks=tuple(dump.tasks[i] for i in kept),
        values=stream.reshape(collects * entries, *stream.shape[2:])[:, kept][:, :, kept],
        step=dump.step,
        env_steps=np.repeat(dump.values(f"stream_{dump.step.name}"), entries),
        snapshot=np.repeat(np.arange(collects), entries),
        minibatch=np.tile(np.arange(entries), collects),
        stages={},
        beside={},
    )
    return _known(grams, dump, side)


def layer_grams(
    dump: Dump, side: str, index: Sequence[tuple[int, int]], scheduler: str = "serial"
) -> Float[np.ndarray, "N L K K"]:
    """The Gram of every layer (one named tensor each), as recorded, or else from slabs. Each slab is read once.

    Args:
        dump: a dump with Grams by layer or slabs.
        side: the side to read.
        index: (snapshot, minibatch) of each of the N.
        scheduler: see `toppo_diag.reading.schedulers.map_on`.

    Raises:
        DumpError: the dump has neither Grams by layer nor slabs, or is damaged.
    """
    dump.require_layers(side)
    if f"{side}_layer_gram" in dump:
        at = np.array(index)
        steps, place = np.unique(at[:, 0], return_inverse=True)
        recorded = dump.source.read(f"{side}_layer_gram", (steps, *(slice(None),) * 4))
        return np.asarray(recorded[place, at[:, 1]])
    work = [(dump.path, dump.n_snapshots, side, s, m) for s, m in index]
    with progress(f"{side} slabs of {dump.path}") as done:
        return np.stack(map_on(scheduler, _layer_grams, work, done))


def _layer_grams(path: str, n_snapshots: int, side: str, snapshot: int, minibatch: int) -> Float[np.ndarray, "L K K"]:
    dump = _opened(path, n_snapshots)
    slab = dump.slab_values(side, snapshot, minibatch)
    with single_thread():
        return np.stack([gram(slab[:, part.slice]) for part in dump.parameters(side)])


@lru_cache(maxsize=4)
def _opened(path: str, n_snapshots: int) -> Dump:
    """The dump, opened once for each worker, and again when a live run has more snapshots."""
    return open_dump(path)


def _known(grams: Grams, dump: Dump, side: str) -> Grams:
    """The same, with 0 in the rows and columns of tasks that are not known, and a mark where that is so."""
    filled, known = known_block(grams.values)
    if not known.any():
        raise DiagnosticError(f"{dump.path}: none of the chosen {side} Grams is finite; see `toppo-diag verify`")
    return replace(grams, values=filled, known=None if known.all() else known)


def known_block(gram: Float[np.ndarray, "N K K"]) -> tuple[Float[np.ndarray, "N K K"], Bool[np.ndarray, "N K"]]:
    """Grams with 0 in the rows and columns of tasks that are not finite, and which tasks are finite.

    A row that is not finite makes its column so too. Where a task is finite and meets another one that is not, the
    other one is at fault: its own G_jj is not finite.
    """
    finite = np.isfinite(gram)
    known = np.diagonal(finite, axis1=1, axis2=2)
    block = known[:, :, None] & known[:, None, :]
    known = known & (finite | ~block).all(axis=2)  # an overflow of <g_i, g_j> alone
    return np.where(known[:, :, None] & known[:, None, :], gram, 0.0), known


def stream_note(dump: Dump) -> list[str]:
    """A note that a run has no Gram stream, where one is usual; [] if it has one."""
    if dump.n_stream or dump.step != ENV_STEPS:
        return []
    return [f"{dump.path}: has no Gram stream, so the figure shows its snapshots"]


def dropped_note(dump: Dump, side: str, grams: Grams) -> list[str]:
    """Notes on what is not known in some Grams, one for each cause; [] if all is known."""
    if grams.known is None:
        return []
    present = grams.beside.get("present")
    absent = np.zeros_like(grams.known) if present is None else ~grams.known & (present == 0)
    broken = ~grams.known & ~absent
    causes = {"absent: ": absent, f"not finite: the {side} gradient of ": broken}
    notes = []
    for cause, where in causes.items():
        tasks = [task for task, some in zip(grams.tasks, where.any(axis=0), strict=True) if some]
        if tasks:
            who = ", ".join(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks"
            who = "every task" if 1 < len(tasks) == where.shape[1] else who
            n = int(where.any(axis=1).sum())
            notes.append(f"{dump.path}: {cause}{who}, in {n} of {len(where)} minibatches; these are gaps")
    return notes

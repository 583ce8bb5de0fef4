"""Reads from a dump the Grams of a figure: of some snapshots and tasks, and of a whole side or one layer.

A side is a named group of shared parameters. A snapshot is what was dumped at one collect (rollout phase). A slab is
the (K, P) matrix J of per-task gradients of one minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.blas import single_thread
from toppo.dump import Dump, DumpError, gram, open_dump
from toppo_diag.analysis.stages import choose_snapshots
from toppo_diag.analysis.tasks import resolve
from toppo_diag.errors import DiagnosticError, UsageError, bad_option
from toppo_diag.reading.progress import progress
from toppo_diag.reading.schedulers import map_on
from toppo_diag.request import Request


@dataclass(frozen=True)
class Grams:
    """N Grams of one side of a dump, and where each was taken. Grams with a NaN or an infinity are left out.

    Attributes:
        tasks: K names.
        values: G, (N, K, K) float64, in squared units of the gradients.
        env_steps: environment steps at each Gram, (N,).
        snapshot: index of the snapshot in the dump; for the Gram stream, index of the collect, (N,).
        minibatch: index of the minibatch in the snapshot; for the Gram stream, index of the entry in the collect, (N,).
        stages: label of each snapshot by its index, in the order asked for: a stage, or "snapshot 3".
        beside: what was recorded with each Gram, by name, (N, ...), with the same tasks as in `values`.
        dropped: how many Grams were left out because they were not finite.
    """

    tasks: tuple[str, ...]
    values: Float[np.ndarray, "N K K"]
    env_steps: Int[np.ndarray, "N"]
    snapshot: Int[np.ndarray, "N"]
    minibatch: Int[np.ndarray, "N"]
    stages: dict[int, str]
    beside: dict[str, np.ndarray]
    dropped: int

    def first_of(self, snapshot: int) -> int:
        """The index of the first Gram of a snapshot."""
        return int((self.snapshot == snapshot).argmax())

    def where(self, n: int) -> dict[str, int]:
        """Where Gram n was taken, as the first columns of a table."""
        return {
            "env_steps": int(self.env_steps[n]),
            "snapshot": int(self.snapshot[n]),
            "minibatch": int(self.minibatch[n]),
        }


def require_snapshots(dump: Dump) -> None:
    """Check that a dump holds a snapshot.

    Raises:
        DumpError: it holds none yet.
    """
    if not dump.n_snapshots:
        mend = "wait for the run's first one, or train with `dump_every`"
        raise DumpError(f"{dump.path}: holds no snapshot yet; {mend}")


def chosen_snapshots(dump: Dump, request: Request, default: Sequence[str] = ()) -> dict[int, str]:
    """The label of each snapshot that a request chooses, by index. Without a choice, those of `default`, or all.

    Raises:
        DumpError: the dump has no snapshot.
        UsageError: no such stage, index or step.
    """
    require_snapshots(dump)
    stage = request.stage or (() if request.chooses_snapshots else tuple(default))
    try:
        return choose_snapshots(dump.env_steps, stage, request.snapshot, request.steps)
    except ValueError as error:
        raise UsageError(f"{dump.path}: {error}") from None


def chosen_tasks(dump: Dump, request: Request) -> list[int]:
    """Indices of the tasks to keep, in the order asked for.

    Raises:
        UsageError: the dump does not have one of the tasks, or one is named twice.
    """
    return resolve(request.tasks, dump.tasks, dump.path)


def layer_cuts(dump: Dump, side: str, layer: str) -> tuple[slice, ...]:
    """The columns of a layer: of the parameter with this name, or of all parameters named "<layer>.<...>".

    Raises:
        DumpError: no such side.
        UsageError: no such layer.
    """
    parts = dump.parameters(side)
    found = tuple(part.slice for part in parts if part.name == layer or part.name.startswith(f"{layer}."))
    if not found:
        names = ", ".join(part.name for part in parts)
        raise bad_option("layer", layer, f"side {side!r} of {dump.path} has no such layer; it has {names}")
    return found


def read_grams(dump: Dump, side: str, request: Request, default: Sequence[str] = ()) -> Grams:
    """The Grams of the dumped minibatches that the request asks for.

    Args:
        dump: the dump to read.
        side: the side to read.
        request: snapshots, tasks, layer and scheduler.
        default: the stages to take if the request chooses no snapshots; () for all snapshots.

    Raises:
        DumpError: the dump does not hold what is asked for.
        UsageError: no such side, stage, snapshot, task or layer.
        DiagnosticError: none of these Grams is finite.
    """
    dump.parameters(side)
    stages = chosen_snapshots(dump, request, default)
    index = [(s, m) for s in stages for m in range(dump.n_minibatches)]
    at = np.array(index)
    if request.layer is None:
        values = dump.values(f"{side}_gram")[at[:, 0], at[:, 1]]
    else:
        cuts = (layer_cuts(dump, side, request.layer),)
        values = grams_of_slabs(dump, side, index, cuts, request.scheduler)[:, 0]
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
        env_steps=dump.env_steps[at[:, 0]],
        snapshot=at[:, 0],
        minibatch=at[:, 1],
        stages=stages,
        beside=beside,
        dropped=0,
    )
    return _finite(grams, dump, side)


def read_stream(dump: Dump, side: str, request: Request) -> Grams:
    """The Grams of the Gram stream, which holds some Grams of every collect.

    If the dump has no stream, or the request asks for snapshots or a layer, these are the Grams of `read_grams`.
    """
    if request.chooses_snapshots or request.layer or not dump.n_stream:
        return read_grams(dump, side, request)
    dump.parameters(side)
    stream = dump.values(f"{side}_gram_stream")
    collects, entries = stream.shape[:2]
    kept = chosen_tasks(dump, request)
    grams = Grams(
        tasks=tuple(dump.tasks[i] for i in kept),
        values=stream.reshape(collects * entries, *stream.shape[2:])[:, kept][:, :, kept],
        env_steps=np.repeat(dump.values("stream_env_steps"), entries),
        snapshot=np.repeat(np.arange(collects), entries),
        minibatch=np.tile(np.arange(entries), collects),
        stages={},
        beside={},
        dropped=0,
    )
    return _finite(grams, dump, side)


def grams_of_slabs(
    dump: Dump,
    side: str,
    index: Sequence[tuple[int, int]],
    layers: Sequence[tuple[slice, ...]],
    scheduler: str = "serial",
) -> Float[np.ndarray, "N L K K"]:
    """Grams of some columns of dumped slabs. Each slab is read once, however many layers are asked for.

    Args:
        dump: a dump with slabs.
        side: the side to read.
        index: (snapshot, minibatch) of each slab.
        layers: the columns of each layer, as slices.
        scheduler: see `toppo_diag.reading.schedulers.map_on`.

    Raises:
        DumpError: the dump has no slabs, or is damaged.
    """
    dump.require_slabs()
    work = [(dump.path, dump.n_snapshots, side, s, m, tuple(layers)) for s, m in index]
    with progress(f"{side} slabs of {dump.path}") as done:
        return np.stack(map_on(scheduler, _layer_grams, work, done))


def _layer_grams(
    path: str, n_snapshots: int, side: str, snapshot: int, minibatch: int, layers: tuple[tuple[slice, ...], ...]
) -> Float[np.ndarray, "L K K"]:
    slab = _opened(path, n_snapshots).slab_values(side, snapshot, minibatch)
    with single_thread():
        return np.stack([np.sum([gram(slab[:, cut]) for cut in cuts], axis=0) for cuts in layers])


@lru_cache(maxsize=4)
def _opened(path: str, n_snapshots: int) -> Dump:
    """The dump, opened once for each worker, and again when a live run has more snapshots."""
    return open_dump(path)


def _finite(grams: Grams, dump: Dump, side: str) -> Grams:
    good = np.isfinite(grams.values).all(axis=(1, 2))
    if good.all():
        return grams
    if not good.any():
        raise DiagnosticError(f"{dump.path}: none of the chosen {side} Grams is finite; see `toppo-diag verify`")
    return replace(
        grams,
        **{name: getattr(grams, name)[good] for name in ("values", "env_steps", "snapshot", "minibatch")},
        beside={name: value[good] for name, value in grams.beside.items()},
        stages={s: label for s, label in grams.stages.items() if s in grams.snapshot[good]},
        dropped=int(np.sum(~good)),
    )


def dropped_note(dump: Dump, side: str, grams: Grams) -> list[str]:
    """A note that some Grams were not finite; [] if all were."""
    if not grams.dropped:
        return []
    return [f"{dump.path}: {grams.dropped} {side} Grams are not finite and were left out"]

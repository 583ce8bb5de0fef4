"""Recording a dump: the training thread copies and returns, one background thread writes, a marker commits.

A snapshot's chunks are written first, never touching a committed one; raising `n_committed` in the root document, one
atomic replacement, makes them visible together. A crash at any moment leaves what was committed; `resume` clears up.
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks, lock, numerics, zarr_store
from toppo.dump.background import Background
from toppo.dump.files import Files, LocalFiles, files_at, is_url, local_path, remove_tree
from toppo.dump.schema import DumpError, Header, Layout, ParameterSlice, ScalarSpec, log, with_offsets

Values = Mapping[str, Any]
Slot = dict[str, npt.NDArray[np.float32]]

READY_SLOTS = 1
"""Buffers of one minibatch's slabs made in advance; a snapshot recorded all at once makes the rest as it needs them."""


@dataclass(frozen=True)
class Minibatch:
    """A recorded minibatch, on its way to disk.

    Attributes:
        slot: the buffer of slabs to give back, {} if there is none.
        sides: those whose slab is in it.
        small: Grams and scalars, by array name.
    """

    slot: Slot
    sides: tuple[str, ...]
    small: dict[str, npt.NDArray[Any]]


class DumpWriter:
    """Writes one run's dump; make it with `create` or `resume`.

    As a context manager it closes the dump at the end, or, when an exception leaves the block, keeps what was committed
    and leaves the dump to be resumed.
    """

    def __init__(self, files: Files, header: Header, handle: int | None) -> None:
        self._files = files
        self._header = header
        self._lock = handle
        self._where = files.where
        self._documents = zarr_store.read_documents(files, header.layout)
        self._specs = header.layout.arrays(*header.allocated)
        # the training thread counts what it handed over, the background thread (in _header) what is committed
        self._snapshot, self._collect = header.committed
        # of the current snapshot: all that was recorded, what still waits to be handed over, what the background wrote
        self._recorded: set[int] = set()
        self._waiting: dict[int, Minibatch] = {}
        self._written: dict[int, dict[str, npt.NDArray[Any]]] = {}
        self._ended = False
        # one snapshot's slabs may wait: a whole one is taken without blocking, memory stays bounded
        self._slots_left = max(READY_SLOTS, header.layout.minibatches)
        self._slots: queue.LifoQueue[Slot] = queue.LifoQueue()
        if header.layout.slabs:
            for _ in range(READY_SLOTS):
                self._slots.put(self._new_slot())
        self._background = Background(depth=4, explain=self._explain)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        tasks: Sequence[str],
        sides: Mapping[str, int | Sequence[ParameterSlice]],
        snapshots: int | None = None,
        minibatches: int = 1,
        attrs: Mapping[str, Any] | None = None,
        slabs: bool = True,
        keepbits: int | None = None,
        stream: tuple[int | None, int] | None = None,
        minibatch_scalars: Mapping[str, ScalarSpec] | None = None,
        snapshot_scalars: Mapping[str, ScalarSpec] | None = None,
    ) -> Self:
        """Start a new dump.

        Args:
            path: the store to make, e.g. dumps/run1/dump.zarr; a local path or an fsspec URL.
            tasks: K distinct task names.
            sides: side name -> its parameters in flat order, or just their number P.
            snapshots: how many are planned; None if unknown.
            minibatches: M dumped minibatches per snapshot.
            attrs: the run's configuration, seed, versions; JSON-able.
            slabs: keep the gradients; False keeps their Grams alone.
            keepbits: mantissa bits of the slabs to keep, 1 to 23; None keeps all. Grams are of the unrounded slabs.
            stream: (collects planned or None, Grams per side and collect) of the Gram stream; None for no stream.
            minibatch_scalars: what each `record_minibatch` brings besides slabs and Grams.
            snapshot_scalars: what each `commit_snapshot` brings.

        Raises:
            DumpError: the path is taken, or an argument cannot be stored.
            OSError: the place cannot be written.
        """
        layout = Layout(
            tasks=tuple(tasks),
            sides={side: with_offsets(parameters) for side, parameters in sides.items()},
            minibatches=minibatches,
            minibatch_scalars=dict(minibatch_scalars or {}),
            snapshot_scalars=dict(snapshot_scalars or {}),
            slabs=slabs,
            keepbits=keepbits,
            stream_entries=None if stream is None else stream[1],
        )
        layout.check()
        for what, planned in (("snapshots", snapshots), ("stream collects", stream and stream[0])):
            if planned is not None and planned < 0:
                raise DumpError(f"{what} must be 0 or more, or None if unknown; got {planned}")
        header = Header(
            layout=layout,
            attrs=_json_able(dict(attrs or {})),
            n_planned=snapshots,
            stream_planned=None if stream is None else stream[0],
        )
        if is_url(path):
            files = files_at(path)
            if files.read(zarr_store.ROOT) is not None:
                raise DumpError(f"{path}: already there; resume it or choose another place")
            _build(files, header)
            return cls(files, header, None)
        target = local_path(path)
        if target.exists():
            raise DumpError(f"{target}: already there; resume it or choose another path")
        building = target.with_name(target.name + ".creating")
        remove_tree(building)
        building.mkdir(parents=True)
        handle = lock.acquire(building)
        try:
            _build(LocalFiles(building), header)
            building.rename(target)
            return cls(LocalFiles(target), header, handle)
        except BaseException:
            lock.release(handle)
            raise

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, snapshots: int | None = None, stream: int | None = None) -> Self:
        """Go on with a dump that was interrupted, or was closed, from exactly `snapshots` and `stream`.

        Everything past them is deleted, along with what a crash left half written.

        Args:
            path: the store.
            snapshots: committed snapshots to keep, as in the trainer's checkpoint; None keeps all.
            stream: committed stream collects to keep; None keeps all.

        Raises:
            DumpError: not a dump, fewer are committed than asked for, or another process is writing it.
        """
        files = files_at(path)
        header = zarr_store.read_header(files)
        handle = lock.acquire(files.root) if isinstance(files, LocalFiles) else None
        try:
            header = zarr_store.read_header(files)  # again: a writer may just have ended
            kept = []
            for what, wanted, committed in zip(
                ("snapshots", "stream collects"), (snapshots, stream), header.committed, strict=True
            ):
                if wanted is not None and not 0 <= wanted <= committed:
                    raise DumpError(
                        f"{files.where}: cannot resume at {wanted} {what}, it holds {committed}; "
                        "resume from an older checkpoint, or start again"
                    )
                kept.append(committed if wanted is None else wanted)
            header = header.at(*kept)
            for name, what in zarr_store.ZarrSource(files).damaged_metadata():
                raise DumpError(f"{files.where}: cannot resume, {name}: {what}; restore its zarr.json from a copy")
            documents = zarr_store.read_documents(files, header.layout)
            zarr_store.write_root(files, header, documents)
            zarr_store.set_length(files, documents, header.allocated)
            _clear_uncommitted(files, header)
            return cls(files, header, handle)
        except BaseException:
            if handle is not None:
                lock.release(handle)
            raise

    @property
    def path(self) -> str:
        """Path or URL of the store."""
        return self._where

    @property
    def n_committed(self) -> int:
        """Snapshots committed so far (those still in the queue do not count)."""
        return self._header.n_committed

    @property
    def stream_committed(self) -> int:
        """Stream collects committed so far."""
        return self._header.stream_committed

    def record_minibatch(
        self,
        minibatch: int,
        *,
        slabs: Values | None = None,
        grams: Values | None = None,
        scalars: Values | None = None,
    ) -> None:
        """Add one dumped minibatch to the current snapshot. Copies what it is given and returns.

        Args:
            minibatch: its index within the snapshot, 0 to M - 1.
            slabs: side -> (K, P) gradients, fp32: numpy, or torch on any device. Rows that are not finite are kept and
                flagged.
            grams: side -> (K, K) Gram; a side left out has it computed from the slab, in the background.
            scalars: a value for each of the declared minibatch scalars, in the declared shape.

        Raises:
            DumpError: an unknown, missing or misshapen value; or the background thread failed.
        """
        self._check_open()
        layout = self._header.layout
        slabs, grams, scalars = dict(slabs or {}), dict(grams or {}), dict(scalars or {})
        at = f"snapshot {self._snapshot}, minibatch {minibatch}"
        if not 0 <= minibatch < layout.minibatches or minibatch in self._recorded:
            wrong = "was already recorded" if minibatch in self._recorded else f"is not in 0..{layout.minibatches - 1}"
            raise DumpError(f"{self._where}: {at} {wrong}")
        self._check_room(self._snapshot, self._header.allocated[0], "snapshots")
        unknown = sorted((slabs.keys() | grams.keys()) - layout.sides.keys())
        if unknown:
            raise DumpError(f"{self._where}: {at}: unknown side {', '.join(unknown)}; it has {', '.join(layout.sides)}")
        for side in layout.sides:
            if side not in slabs and (layout.slabs or side not in grams):
                raise DumpError(f"{self._where}: {at}: side {side!r} came without its slab")
        K = len(layout.tasks)
        small = self._conform(scalars, layout.minibatch_scalars, at)
        small |= {
            f"{side}_gram": self._shaped(value, (K, K), "f8", f"{at}: {side} gram") for side, value in grams.items()
        }
        # a slab that is neither kept nor needed for its Gram is not worth a copy
        wanted = {side: _host(slab) for side, slab in slabs.items() if layout.slabs or side not in grams}
        for side, slab in wanted.items():
            if slab.shape != (K, layout.parameters(side)) or slab.dtype.kind != "f":
                raise DumpError(
                    f"{self._where}: {at}: {side} slab is {slab.dtype} {slab.shape}, "
                    f"expected floats {(K, layout.parameters(side))}: (tasks, parameters)"
                )
        slot = self._take_slot() if wanted else {}
        for side, slab in wanted.items():
            with np.errstate(over="ignore"):
                np.copyto(slot[side], slab, casting="same_kind")
        self._waiting[minibatch] = Minibatch(slot, tuple(wanted), small)
        self._recorded.add(minibatch)

    def start_writing(self) -> None:
        """Let the background write the minibatches recorded so far, and so give their buffers back.

        For a loop whose minibatches lie apart: without it they wait for the commit, so that writing one does not slow
        down the copy of the next. Nothing of them can be seen before the commit either way.

        Raises:
            DumpError: the background thread failed.
        """
        self._check_open()
        if not self._waiting:
            return
        snapshot, waiting, written = self._snapshot, self._waiting, self._written
        self._background.submit(lambda: self._write_minibatches(snapshot, waiting, written))
        self._waiting = {}

    def commit_snapshot(self, *, env_steps: int, collect: int, scalars: Values | None = None) -> None:
        """End the current snapshot; the background thread commits it once it is written.

        Args:
            env_steps: environment steps taken so far.
            collect: index of the collect.
            scalars: a value for each of the declared snapshot scalars, in the declared shape.

        Raises:
            DumpError: a minibatch or scalar is missing or misshapen; or the background thread failed.
        """
        self._check_open()
        layout = self._header.layout
        at = f"snapshot {self._snapshot}"
        missing = sorted(set(range(layout.minibatches)) - self._recorded)
        if missing:
            raise DumpError(f"{self._where}: {at} cannot be committed, minibatches {missing} were not recorded")
        values = self._conform(dict(scalars or {}), layout.snapshot_scalars, at)
        values |= {"env_steps": np.array(int(env_steps)), "collect": np.array(int(collect))}
        self.start_writing()
        snapshot, written = self._snapshot, self._written
        self._background.submit(lambda: self._commit_snapshot(snapshot, written, values))
        self._recorded, self._written = set(), {}
        self._snapshot += 1

    def record_stream(self, collect: int, *, grams: Values, env_steps: int) -> None:
        """Add one collect to the Gram stream, and commit it.

        Args:
            collect: its index: the number of collects recorded before it.
            grams: side -> (n, K, K), for every side; n as planned.
            env_steps: environment steps taken so far.

        Raises:
            DumpError: out of order, misshapen, no stream planned; or the background thread failed.
        """
        self._check_open()
        layout = self._header.layout
        if layout.stream_entries is None:
            raise DumpError(f"{self._where}: made without a Gram stream; create it with stream=(collects, entries)")
        if collect != self._collect:
            raise DumpError(f"{self._where}: stream collect {collect} out of order, {self._collect} is next")
        self._check_room(collect, self._header.allocated[1], "stream collects")
        if grams.keys() != layout.sides.keys():
            raise DumpError(
                f"{self._where}: stream collect {collect}: Grams of {sorted(grams)}, expected {sorted(layout.sides)}"
            )
        K = len(layout.tasks)
        at = f"stream collect {collect}"
        values = {
            f"{side}_gram_stream": self._shaped(value, (layout.stream_entries, K, K), "f8", f"{at}: {side} Grams")
            for side, value in grams.items()
        }
        values["stream_env_steps"] = np.array(int(env_steps))
        self._background.submit(lambda: self._commit_stream(collect, values))
        self._collect += 1

    def record(self, *, step: int, **values: Any) -> None:
        """Record and commit one snapshot of one minibatch: for a training loop that only has gradients and numbers.

        Args:
            step: optimiser (or environment) steps taken so far.
            values: a (K, P) slab for every side, by its name; and any further (K,), (K, K) or single numbers, the same
                names in every call. What `create` did not declare is declared by the first call.

        Raises:
            DumpError: see `record_minibatch`.
        """
        layout = self._header.layout
        slabs = {side: values.pop(side) for side in layout.sides if side in values}
        if self._snapshot == 0 and not self._recorded:
            self._declare({name: v for name, v in values.items() if name not in layout.minibatch_scalars})
        self.record_minibatch(0, slabs=slabs, scalars=values)
        self.commit_snapshot(env_steps=step, collect=self._snapshot)

    def call_after_commit(self, action: Callable[[], object]) -> None:
        """Run `action` on the background thread once everything recorded so far is committed.

        It does not run if the writing failed; its own failure is raised by the next call, like one of the writing. It
        must not call this writer.
        """
        self._check_open()
        self._background.submit(lambda: self._call(action))

    def check(self) -> None:
        """Raise DumpError if the background thread failed."""
        self._background.check()

    def flush(self) -> None:
        """Wait until everything recorded so far is written, and committed where that was asked for; then `check`."""
        self._background.flush()

    def close(self) -> None:
        """End the dump: write what is left, trim the arrays to what is committed, mark it complete, consolidate.

        Raises:
            DumpError: a snapshot was begun and not committed; or the background thread failed. The dump can be resumed.
        """
        if self._ended:
            return
        try:
            self.flush()
            if self._recorded:
                raise DumpError(
                    f"{self._where}: snapshot {self._snapshot} was begun and not committed; commit it before close"
                )
            _clear_uncommitted(self._files, self._header)
            documents = zarr_store.set_length(self._files, self._documents, self._header.committed)
            self._header = replace(self._header, complete=True)
            zarr_store.write_root(self._files, self._header, documents)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop writing without completing the dump; `resume` goes on from what is committed. Raises nothing."""
        self._ended = True
        self._background.stop()
        if self._lock is not None:
            lock.release(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    # On the training thread

    def _check_open(self) -> None:
        if self._ended:
            raise DumpError(f"{self._where}: this writer has ended; resume the dump to add to it")
        self._background.check()

    def _check_room(self, index: int, allocated: int, what: str) -> None:
        if index >= allocated:
            raise DumpError(f"{self._where}: was created for {allocated} {what} and holds them all; plan for more")

    def _conform(self, values: dict[str, Any], specs: Mapping[str, ScalarSpec], at: str) -> dict[str, npt.NDArray[Any]]:
        if values.keys() != specs.keys():
            wrong = [f"{n} is missing" for n in specs if n not in values] + [
                f"{n} is unknown" for n in values if n not in specs
            ]
            raise DumpError(f"{self._where}: {at}: {', '.join(wrong)}; record exactly the declared scalars")
        sizes = self._header.layout.sizes(0, 0)
        return {
            name: self._shaped(values[name], tuple(sizes[d] for d in spec.dims), spec.dtype, f"{at}: {name}")
            for name, spec in specs.items()
        }

    def _shaped(self, value: Any, shape: tuple[int, ...], dtype: str, what: str) -> npt.NDArray[Any]:
        array = _host(value)
        if array.shape != shape or array.dtype.kind not in "fiub" or (dtype[0] == "i" and array.dtype.kind == "f"):
            raise DumpError(f"{self._where}: {what} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        return array.astype(dtype)  # always a copy: the caller may go on with its own

    def _declare(self, values: Values) -> None:
        if not values:
            return
        K = len(self._header.layout.tasks)
        dims: dict[tuple[int, ...], tuple[str, ...]] = {(): (), (K, K): ("task", "task_j"), (K,): ("task",)}
        scalars = dict(self._header.layout.minibatch_scalars)
        for name, value in values.items():
            array = _host(value)
            if array.shape not in dims or array.dtype.kind not in "fiub":
                sides = ", ".join(self._header.layout.sides)
                what = f"{name} is {array.dtype} {array.shape}: neither a side ({sides})"
                raise DumpError(f"{self._where}: {what} nor numbers of shape ({K},), ({K}, {K}) or ()")
            scalars[name] = ScalarSpec(dims[array.shape], "f8" if array.dtype.kind == "f" else "i8")
        layout = replace(self._header.layout, minibatch_scalars=scalars)
        layout.check()
        self.flush()
        self._header = replace(self._header, layout=layout)
        self._specs = layout.arrays(*self._header.allocated)
        for name in values:
            zarr_store.create_array(self._files, name, self._specs[name])
        self._documents = zarr_store.read_documents(self._files, layout)
        zarr_store.write_root(self._files, self._header, self._documents)

    def _new_slot(self) -> Slot:
        layout = self._header.layout
        self._slots_left -= 1
        # written, not just allocated: the copies should not pay for the page faults
        return {side: np.full((len(layout.tasks), layout.parameters(side)), 0, np.float32) for side in layout.sides}

    def _take_slot(self) -> Slot:
        while True:
            try:
                return self._slots.get(block=not self._slots_left, timeout=0.2)
            except queue.Empty:
                self._background.check()  # a failed writer gives no slot back
                if self._slots_left:
                    return self._new_slot()

    # On the background thread

    def _write_minibatches(
        self, snapshot: int, waiting: dict[int, Minibatch], written: dict[int, dict[str, npt.NDArray[Any]]]
    ) -> None:
        for minibatch in sorted(waiting):
            written[minibatch] = self._write_slabs(snapshot, minibatch, waiting.pop(minibatch))

    def _commit_snapshot(
        self, snapshot: int, written: dict[int, dict[str, npt.NDArray[Any]]], values: dict[str, npt.NDArray[Any]]
    ) -> None:
        parts = [written[minibatch] for minibatch in sorted(written)]
        values |= {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._commit(values, snapshot, (snapshot + 1, self._header.stream_committed))

    def _write_slabs(self, snapshot: int, minibatch: int, given: Minibatch) -> dict[str, npt.NDArray[Any]]:
        """Write a minibatch's slabs and return what goes into arrays of one chunk per snapshot."""
        layout = self._header.layout
        small = given.small
        for side in layout.sides:
            if side in given.sides:
                slab = given.slot[side]
                small[f"{side}_finite"] = numerics.finite_rows(slab)
                if f"{side}_gram" not in small:
                    small[f"{side}_gram"] = numerics.gram(slab)
                if layout.slabs:
                    key = self._specs[f"{side}_grad"].chunk_keys(f"{side}_grad", snapshot)[minibatch]
                    self._files.write(key, chunks.encode_slab(slab, layout.keepbits))
            else:
                small[f"{side}_finite"] = np.isfinite(np.diagonal(small[f"{side}_gram"])).astype(np.int8)
            for bad in np.flatnonzero(small[f"{side}_finite"] == 0):
                what = f"snapshot {snapshot}, minibatch {minibatch}: the {side} gradient of {layout.tasks[bad]}"
                log.warning("%s: %s is not finite; recorded and flagged", self._where, what)
        if given.slot:
            self._slots.put(given.slot)
        return small

    def _commit_stream(self, collect: int, values: dict[str, npt.NDArray[Any]]) -> None:
        self._commit(values, collect, (self._header.n_committed, collect + 1))

    def _commit(self, values: dict[str, npt.NDArray[Any]], step: int, committed: tuple[int, int]) -> None:
        for name, value in values.items():
            (key,) = self._specs[name].chunk_keys(name, step)
            self._files.write(key, chunks.encode(value, self._specs[name].dtype))
        # one axis a commit; all at once, after all are written: a file system then does most of the work in the first
        axis = self._specs[next(iter(values))].dims[0]
        of_step = [s.chunk_keys(name, step) for name, s in self._specs.items() if s.steps and s.dims[0] == axis]
        self._files.sync(key for keys in of_step for key in keys)
        header = self._header.at(*committed)
        zarr_store.write_root(self._files, header, self._documents)
        self._header = header

    def _call(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            raise _ActionError(error) from error

    def _explain(self, failure: BaseException) -> DumpError:
        if isinstance(failure, _ActionError):
            return DumpError(
                f"{self._where}: what was to follow the commit failed: {failure.args[0]}; the dump is intact"
            )
        reason = (
            failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure) or repr(failure)
        )
        mend = "free some space" if "space" in reason or "quota" in reason else "mend the cause"
        return DumpError(
            f"{self._where}: writing failed ({reason}); its {self._header.n_committed} committed snapshots are intact: "
            f"{mend} and resume"
        )


class _ActionError(Exception):
    """What `call_after_commit` was given failed."""


def _build(files: Files, header: Header) -> None:
    zarr_store.create_arrays(files, header.layout, header.allocated)
    # the root comes last: without it there is no dump
    zarr_store.write_root(files, header, zarr_store.read_documents(files, header.layout))


def _clear_uncommitted(files: Files, header: Header) -> None:
    """Delete every chunk past what is committed, and every file a crash left half written."""
    specs = header.layout.arrays(*header.allocated)
    for key in list(files.listing()):
        name, _, chunk = key.rpartition("/")
        spec = specs.get(name)
        if key.endswith(".partial"):
            files.delete(key)
        elif spec is not None and spec.steps and chunk.startswith("c."):
            committed = header.n_committed if spec.dims[0] == "snapshot" else header.stream_committed
            if int(chunk.split(".")[1]) >= committed:
                files.delete(key)


def _host(value: Any) -> npt.NDArray[Any]:
    """A value as a numpy array; a torch tensor, known by its `detach`, is fetched from its device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):
            value = value.float()
    return np.asarray(value)


def _json_able(attrs: dict[str, Any]) -> dict[str, Any]:
    try:
        result = json.loads(json.dumps(attrs, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DumpError(
            f"attrs cannot be kept as JSON: {error}; give plain numbers, strings, lists and dicts"
        ) from error
    if not isinstance(result, dict):
        raise DumpError("attrs must be a dict")
    return result

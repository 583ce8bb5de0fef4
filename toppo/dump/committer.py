"""The work of the background thread: it writes chunks, waits until they are on disk, and raises the marker.

The chunks of a snapshot are written first. They never overwrite a committed chunk. Then one atomic replacement of the
root document raises `n_committed`, the marker, and all these chunks become visible together. A crash at any moment
leaves the committed snapshots intact.

The wait for the disk takes longer than all the rest where snapshots are small. So snapshots that come faster than the
disk are committed in groups: one wait and one replacement for several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks, manifest, numerics, zarr_store
from toppo.dump.buffers import Minibatch, Slot
from toppo.dump.errors import DumpError, DumpWriteError, cause
from toppo.dump.files import Files
from toppo.dump.header import NO_LINK, Header
from toppo.dump.schema import ABSENT, Layout, log

Values = dict[str, npt.NDArray[Any]]
"""Array name -> the values of one of its chunks."""

Written = dict[int, Values]
"""Index of a minibatch whose slabs are written -> its Grams, flags and scalars, which the commit will write."""


_BUSY = 1.0
"""Seconds after which a commit is made though more snapshots wait."""


class Committer:
    """Writes an open dump.

    Its methods run on the background thread, one at a time. `declare`, `note` and `finish` are the exceptions: they run
    on the training thread while the background thread has nothing to do.

    Args:
        files: where the dump is.
        header: what is committed so far.
        give_back: frees the buffer of a minibatch whose slabs are written.
        commit_every: seconds that a snapshot may wait for its commit.

    Attributes:
        header: what is committed.
    """

    def __init__(
        self, files: Files, header: Header, give_back: Callable[[Slot], None], commit_every: float = 0.0
    ) -> None:
        self.header = header
        self._written = header  # what is written, of which the last snapshots may not be committed yet
        self._unsynced: list[str] = []  # keys of the chunks between the two
        self._since = 0.0  # when the first of them was written
        self._files = files
        self._give_back = give_back
        self._commit_every = commit_every
        self._room = header.allocated
        self._specs = manifest.stored(header, self._room)
        self._documents = zarr_store.read_documents(files, self._specs)
        self._said: set[str] = set()  # sides whose first gradients that are not finite were logged
        self._sums: dict[str, bytes] = {}  # key of a chunk that is written and not committed -> its checksums

    def write_minibatches(self, snapshot: int, waiting: dict[int, Minibatch], written: Written) -> None:
        """Write the slabs of minibatches. No reader sees them before the commit.

        Args:
            snapshot: index of the snapshot that the minibatches belong to.
            waiting: index -> minibatch; empty afterwards.
            written: receives the values that the commit will write.
        """
        for minibatch in sorted(waiting):
            written[minibatch] = self._write_slabs(snapshot, minibatch, waiting.pop(minibatch))

    def commit_snapshot(self, snapshot: int, written: Written, values: Values) -> None:
        """Write the rest of a snapshot. The next `settle` that is due commits it.

        Args:
            snapshot: index of the snapshot.
            written: the values of its minibatches that `write_minibatches` did not write.
            values: the scalars of the snapshot.
        """
        parts = [written[minibatch] for minibatch in sorted(written)]
        values |= {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._write_step(values, snapshot, (snapshot + 1, self._written.stream_committed))

    def commit_stream(self, collect: int, values: Values) -> None:
        """Write one collect (rollout phase) of the Gram stream. The next `settle` that is due commits it.

        Args:
            collect: index of the collect.
            values: its Grams and environment steps.
        """
        self._write_step(values, collect, (self._written.n_committed, collect + 1))

    def settle(self, urgency: str) -> float | None:
        """Commit what is written, if that is due: wait until it is on disk, and raise the marker.

        Args:
            urgency: "now"; or "idle" while nothing waits to be written, or "busy" while something does.

        Returns:
            Seconds until it will be due; None if everything is committed.
        """
        if self._written is self.header:
            return None
        delay = {"now": 0.0, "idle": self._commit_every, "busy": max(self._commit_every, _BUSY)}[urgency]
        left = self._since + delay - time.monotonic()
        if left > 0:
            return left
        # Wait for all chunks together, after all are written, because a file system does most of the work in the first
        # wait.
        self._files.sync(self._unsynced)
        zarr_store.write_root(self._files, self._written, self._documents)
        self.header, self._unsynced = self._written, []
        return None

    def declare(self, layout: Layout, names: list[str]) -> None:
        """Make further arrays.

        Args:
            layout: the layout with these arrays.
            names: names of the further arrays.
        """
        self.settle("now")
        self.header = self._written = replace(self.header, layout=layout)
        self._specs = manifest.stored(self.header, self._room)
        began = self.header.version > 1 and not self.header.n_committed
        for name in (*names, *([manifest.ARRAYS["snapshot"]] if began else [])):
            zarr_store.create_array(self._files, name, self._specs[name], layout)
        self._documents = zarr_store.read_documents(self._files, self._specs)
        zarr_store.write_root(self._files, self.header, self._documents)

    def note(self, attrs: Mapping[str, Any]) -> None:
        """Commit what is written, and put these attributes of the run in place of those of the same name."""
        self.settle("now")
        self.header = self._written = replace(self.header, attrs={**self.header.attrs, **attrs})
        zarr_store.write_root(self._files, self.header, self._documents)

    def finish(self) -> None:
        """Trim the arrays to the committed length, mark the dump complete, and consolidate its metadata."""
        self.settle("now")
        zarr_store.clear_uncommitted(self._files, self.header)
        documents = zarr_store.set_length(self._files, self._documents, self.header.committed)
        self.header = self._written = replace(self.header, complete=True)
        zarr_store.write_root(self._files, self.header, documents)

    def call(self, action: Callable[[], object]) -> None:
        """Commit what is written, then run an action of the user. `explain` tells its failure from a failed write."""
        self.settle("now")
        try:
            action()
        except Exception as error:
            raise _ActionError(error) from error

    def explain(self, failure: BaseException) -> DumpError:
        """The error for the training thread, after a method of this object raised `failure`."""
        where = self._files.where
        if isinstance(failure, _ActionError):
            return DumpError(
                f"{where}: the action after the commit failed: {failure.args[0]}; the dump is intact", path=where
            )
        reason, mend = cause(failure)
        return DumpWriteError(
            f"{where}: writing failed ({reason}); its {self.header.n_committed} committed snapshots are intact: "
            f"{mend} and resume",
            path=where,
        )

    def _write_slabs(self, snapshot: int, minibatch: int, given: Minibatch) -> Values:
        """Write the slabs of one minibatch. Return its values for the arrays that have one chunk per snapshot."""
        layout = self.header.layout
        small = given.small
        for side in layout.sides:
            if side in given.sides:
                slab = given.slot[side]
                finite = numerics.finite_rows(slab)
                self._add_grams(side, slab, small)
                if layout.slabs:
                    key = self._specs[f"{side}_grad"].chunk_keys(f"{side}_grad", snapshot)[minibatch]
                    rows = chunks.encode_slab(slab, layout.keepbits)
                    self._write(key, rows.parts, rows.sums)
            else:
                finite = np.isfinite(np.diagonal(small[f"{side}_gram"])).astype(np.int8)
            if layout.absences:
                finite[small["present"] == 0] = ABSENT
            small[f"{side}_finite"] = finite
            self._say_once(side, f"snapshot {snapshot}, minibatch {minibatch}", np.flatnonzero(finite == 0))
        if given.slot:
            self._give_back(given.slot)
        return small

    def _say_once(self, side: str, place: str, bad: npt.NDArray[np.intp]) -> None:
        """Log the first gradients of a side that are not finite. A run that diverges has no others from then on."""
        if not len(bad) or side in self._said:
            return
        self._said.add(side)
        names = [self.header.layout.tasks[i] for i in bad]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        what = f"{place}: the {side} gradient of {shown}"
        log.warning("%s: %s is not finite; recorded and flagged, as are later ones", self._files.where, what)

    def _add_grams(self, side: str, slab: npt.NDArray[np.float32], small: Values) -> None:
        """Compute the Grams of a side that the dump keeps and that were not given."""
        layout = self.header.layout
        whole, by_layer = f"{side}_gram", f"{side}_layer_gram"
        if layout.layer_grams and by_layer not in small:
            small[by_layer] = numerics.layer_grams(slab, layout.sides[side])
            small.setdefault(whole, small[by_layer].sum(axis=0))
        elif whole not in small:
            small[whole] = numerics.gram(slab)

    def _write_step(self, values: Values, step: int, written: tuple[int, int]) -> None:
        """Write the chunks of a step that are not written yet, and its manifest."""
        # The axis tells the arrays of a snapshot from those of the Gram stream.
        axis = self._specs[next(iter(values))].dims[0]
        if step >= self._specs[next(iter(values))].shape[0]:
            self._grow()
        for name, value in values.items():
            (key,) = self._specs[name].chunk_keys(name, step)
            data = chunks.encode(value, self._specs[name].dtype)
            self._write(key, [data], chunks.checksum(data))
        chain = {} if self.header.version == 1 else {axis: self._write_manifest(axis, step)}
        of_step = [s.chunk_keys(name, step) for name, s in self._specs.items() if s.steps and s.dims[0] == axis]
        if self._written is self.header:
            self._since = time.monotonic()
        self._unsynced += [key for keys in of_step for key in keys]
        self._written = self._written.at(*written, chain)

    def _grow(self) -> None:
        """Make the arrays longer, for a run that did not say how long it would be."""
        self.settle("now")  # a crash must not leave arrays that are longer than the committed header accounts for
        self._room = self.header.allocated
        self._documents = zarr_store.set_length(self._files, self._documents, self._room)
        self._specs = manifest.stored(self.header, self._room)

    def _write(self, key: str, parts: list[bytes], sums: bytes) -> None:
        self._files.write(key, parts)
        self._sums[key] = sums

    def _write_manifest(self, axis: str, step: int) -> str:
        """Write the manifest of a step whose chunks are written. Return its link (hex)."""
        layout = self.header.layout
        keys = [
            key for name in manifest.in_order(layout, axis, step) for key in self._specs[name].chunk_keys(name, step)
        ]
        (key,) = self._specs[manifest.ARRAYS[axis]].chunk_keys(manifest.ARRAYS[axis], step)
        length = self._specs[manifest.ARRAYS[axis]].shape[1]
        before = bytes.fromhex(self._written.chain.get(axis, NO_LINK))
        sums = b"".join(self._sums.pop(key) for key in keys)
        content = manifest.make(axis, step, before, sums, length)
        self._files.write(key, [chunks.encode(np.frombuffer(content, np.uint8), "u1")])
        return manifest.link(content).hex()


class _ActionError(Exception):
    """The action that `call` ran has failed."""

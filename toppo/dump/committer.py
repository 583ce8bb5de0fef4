"""The work of the background thread: it writes chunks, waits until they are on disk, and raises the marker.

The chunks of a snapshot are written first. They never overwrite a committed chunk. Then one atomic replacement of the
root document raises `n_committed`, the marker, and all these chunks become visible together. A crash at any moment
leaves the committed snapshots intact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import chunks, manifest, numerics, zarr_store
from toppo.dump.buffers import Minibatch, Slot
from toppo.dump.errors import DumpError
from toppo.dump.files import Files
from toppo.dump.schema import ABSENT, NO_LINK, Header, Layout, log

Values = dict[str, npt.NDArray[Any]]
"""Array name -> the values of one of its chunks."""

Written = dict[int, Values]
"""Index of a minibatch whose slabs are written -> its Grams, flags and scalars, which the commit will write."""


class Committer:
    """Writes an open dump.

    Its methods run on the background thread, one at a time. `declare` and `finish` are the exceptions: they run on the
    training thread while the background thread has nothing to do.

    Args:
        files: where the dump is.
        header: what is committed so far.
        give_back: frees the buffer of a minibatch whose slabs are written.
    """

    def __init__(self, files: Files, header: Header, give_back: Callable[[Slot], None]) -> None:
        self.header = header
        self._files = files
        self._give_back = give_back
        self._specs = manifest.stored(header, header.allocated)
        self._documents = zarr_store.read_documents(files, self._specs)
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
        """Commit a snapshot.

        Args:
            snapshot: index of the snapshot.
            written: the values of its minibatches that `write_minibatches` did not write.
            values: the scalars of the snapshot.
        """
        parts = [written[minibatch] for minibatch in sorted(written)]
        values |= {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._commit(values, snapshot, (snapshot + 1, self.header.stream_committed))

    def commit_stream(self, collect: int, values: Values) -> None:
        """Commit one collect (rollout phase) of the Gram stream.

        Args:
            collect: index of the collect.
            values: its Grams and environment steps.
        """
        self._commit(values, collect, (self.header.n_committed, collect + 1))

    def declare(self, layout: Layout, names: list[str]) -> None:
        """Make further arrays of a dump that has no snapshot yet.

        Args:
            layout: the layout with these arrays.
            names: names of the further arrays.
        """
        self.header = replace(self.header, layout=layout)
        self._specs = manifest.stored(self.header, self.header.allocated)
        grown = [] if self.header.version == 1 else [manifest.ARRAYS["snapshot"]]
        for name in (*names, *grown):
            zarr_store.create_array(self._files, name, self._specs[name], layout)
        self._documents = zarr_store.read_documents(self._files, self._specs)
        zarr_store.write_root(self._files, self.header, self._documents)

    def finish(self) -> None:
        """Trim the arrays to the committed length, mark the dump complete, and consolidate its metadata."""
        zarr_store.clear_uncommitted(self._files, self.header)
        documents = zarr_store.set_length(self._files, self._documents, self.header.committed)
        self.header = replace(self.header, complete=True)
        zarr_store.write_root(self._files, self.header, documents)

    def call(self, action: Callable[[], object]) -> None:
        """Run an action of the user. `explain` can tell its failure from a failed write."""
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
        reason = (
            failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure) or repr(failure)
        )
        mend = "free some space" if "space" in reason or "quota" in reason else "mend the cause"
        return DumpError(
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
                    self._write(key, chunks.encode_slab(slab, layout.keepbits), len(layout.tasks))
            else:
                finite = np.isfinite(np.diagonal(small[f"{side}_gram"])).astype(np.int8)
            if layout.absences:
                finite[small["present"] == 0] = ABSENT
            small[f"{side}_finite"] = finite
            for bad in np.flatnonzero(finite == 0):
                what = f"snapshot {snapshot}, minibatch {minibatch}: the {side} gradient of {layout.tasks[bad]}"
                log.warning("%s: %s is not finite; recorded and flagged", self._files.where, what)
        if given.slot:
            self._give_back(given.slot)
        return small

    def _add_grams(self, side: str, slab: npt.NDArray[np.float32], small: Values) -> None:
        """Compute the Grams of a side that the dump keeps and that were not given."""
        layout = self.header.layout
        whole, by_layer = f"{side}_gram", f"{side}_layer_gram"
        if layout.layer_grams and by_layer not in small:
            small[by_layer] = numerics.layer_grams(slab, layout.sides[side])
            small.setdefault(whole, small[by_layer].sum(axis=0))
        elif whole not in small:
            small[whole] = numerics.gram(slab)

    def _commit(self, values: Values, step: int, committed: tuple[int, int]) -> None:
        for name, value in values.items():
            (key,) = self._specs[name].chunk_keys(name, step)
            self._write(key, chunks.encode(value, self._specs[name].dtype))
        # Wait for all chunks of this step together, after all are written, because a file system does most of the work
        # in the first wait. The axis tells the arrays of a snapshot from those of the Gram stream.
        axis = self._specs[next(iter(values))].dims[0]
        chain = {} if self.header.version == 1 else {axis: self._write_manifest(axis, step)}
        of_step = [s.chunk_keys(name, step) for name, s in self._specs.items() if s.steps and s.dims[0] == axis]
        self._files.sync(key for keys in of_step for key in keys)
        header = self.header.at(*committed, chain)
        zarr_store.write_root(self._files, header, self._documents)
        self.header = header

    def _write(self, key: str, data: bytes, rows: int = 0) -> None:
        self._files.write(key, data)
        self._sums[key] = chunks.checksums(data, rows)

    def _write_manifest(self, axis: str, step: int) -> str:
        """Write the manifest of a step whose chunks are written. Return its link (hex)."""
        keys = [
            key
            for name in manifest.in_order(self.header.layout, axis)
            for key in self._specs[name].chunk_keys(name, step)
        ]
        before = bytes.fromhex(self.header.chain.get(axis, NO_LINK))
        content = manifest.make(axis, step, before, b"".join(self._sums.pop(key) for key in keys))
        (key,) = self._specs[manifest.ARRAYS[axis]].chunk_keys(manifest.ARRAYS[axis], step)
        self._files.write(key, chunks.encode(np.frombuffer(content, np.uint8), "u1"))
        return manifest.link(content).hex()


class _ActionError(Exception):
    """The action that `call` ran has failed."""

"""Recording a dump. The training thread copies and returns, and one background thread writes and commits.

`Intake` is the training thread's part and `Committer` the background thread's; `DumpWriter` joins the two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from toppo.dump.background import Background
from toppo.dump.buffers import Buffers, ahead
from toppo.dump.committer import Committer
from toppo.dump.endings import began, ended
from toppo.dump.errors import DumpError
from toppo.dump.files import place_of
from toppo.dump.header import Header
from toppo.dump.intake import SIDE_ENDS, Given, Intake, Sample
from toppo.dump.schema import MOST_STEPS, SPARE, Layout, ParameterSlice, ScalarSpec, StepAxis, log, with_offsets
from toppo.dump.starting import GoBack, Place, go_back, start


class DumpWriter:
    """Records one run. `create` or `resume` makes the writer.

    As a context manager it closes the dump at the end of the block. When an exception leaves the block, the writer
    stops without closing the dump. What was recorded is kept, and the dump can be resumed. The same happens when the
    process ends before `close`: the dump is then not marked complete.

    Args:
        place: the store to write to.
        commit_every: see `create`.
    """

    def __init__(self, place: Place, commit_every: float = 0.0) -> None:
        self._where, self._lock = place.files.where, place.lock
        self._background = Background(
            # a snapshot takes two jobs
            depth=2 + 2 * ahead(place.header.layout),
            explain=lambda failure: self._committer.explain(failure),
            settle=lambda urgency: self._committer.settle(urgency),
        )
        buffers = Buffers(place.header.layout, self._background.check)
        self._committer = Committer(place.files, place.header, buffers.give_back, commit_every)
        self._intake = Intake(self._where, self._committer, self._background, buffers, place.last)
        self._ended = ""  # why, once it has
        self._process = os.getpid()
        self._place = place_of(place.files)
        began(self._place, self._end_unclosed)

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
        layer_grams: bool = False,
        absences: bool = False,
        step: StepAxis = StepAxis(),  # noqa: B008 - it cannot be changed
        commit_every: float = 0.0,
    ) -> Self:
        """A writer of a new dump.

        Args:
            path: the store to make, such as dumps/run1/dump.zarr; a local path or an fsspec URL.
            tasks: K distinct task names.
            sides: name of a group of shared parameters -> these parameters in flat order, or only their number P.
            snapshots: number of planned snapshots; None if unknown.
            minibatches: M, dumped minibatches per snapshot.
            attrs: configuration, seed and versions of the run, in values that JSON can hold.
            slabs: whether to keep the gradients J (slabs). If not, only their Grams are kept.
            keepbits: mantissa bits of the slabs to keep, 1 to 23; None keeps all. Grams are of the unrounded slabs.
            stream: (planned collects or None, Grams per side and collect) of the Gram stream, which holds Grams of
                every collect (rollout phase); None for no stream.
            minibatch_scalars: numbers that each `record_minibatch` brings besides slabs and Grams.
            snapshot_scalars: numbers that each `commit_snapshot` brings.
            layer_grams: whether to keep the Gram of every layer too. A layer is one named tensor of a side.
            absences: whether a task may be absent from a minibatch. Absent is not the same as a zero gradient.
            step: what the run counts its progress in; "step" by default, `ENV_STEPS` for environment steps.
            commit_every: seconds that a record may wait for its commit, so that many records share one. A crash of the
                process loses what is not committed. At 0 the background thread commits as soon as it can.

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
            layer_grams=layer_grams,
            absences=absences,
            step=step,
            spare=SPARE,
        )
        layout.check_recordable()
        for option, given, planned in (
            ("snapshots", snapshots, snapshots),
            ("stream", stream, None if stream is None else stream[0]),
        ):
            if planned is not None and not 0 <= planned <= MOST_STEPS:
                what = "" if option == "snapshots" else "its planned collects "
                raise DumpError(
                    f"`{option}={given}`: {what}must be 0 or more, or None if unknown, and at most {MOST_STEPS}"
                )
        header = Header(
            layout=layout,
            attrs=_json_able(dict(attrs or {})),
            n_planned=snapshots,
            stream_planned=None if stream is None else stream[0],
        )
        return cls._at(start(path, header), commit_every)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        step: int | None = None,
        snapshots: int | None = None,
        stream: int | None = None,
        commit_every: float = 0.0,
    ) -> Self:
        """A writer that goes on with a dump, whether it was interrupted or closed.

        Everything past `step`, or past `snapshots` and `stream`, is deleted, and so is what a crash left half written.

        Args:
            path: the store.
            step: the step at which training goes on, as in its checkpoint. Whatever was recorded at this step or later
                is deleted, so that it can be recorded again. None deletes nothing by step.
            snapshots: how many committed snapshots to keep, where the checkpoint says that; None keeps all.
            stream: how many committed stream collects to keep; None keeps all.
            commit_every: see `create`.

        Raises:
            DumpNotFoundError: no dump is there.
            DumpError: this is not a dump, fewer are committed than asked for, or another process is writing the dump.
            OSError: the place cannot be written.
        """
        return cls._at(go_back(path, GoBack(step, snapshots, stream)), commit_every)

    @classmethod
    def _at(cls, place: Place, commit_every: float) -> Self:
        try:
            return cls(place, commit_every)
        except BaseException:
            if place.lock is not None:
                place.lock.release()
            raise

    @property
    def path(self) -> str:
        """Path or URL of the store."""
        return self._where

    @property
    def tasks(self) -> tuple[str, ...]:
        """The K names of the tasks."""
        return self._intake.layout.tasks

    @property
    def sides(self) -> tuple[str, ...]:
        """The groups of shared parameters, by name."""
        return tuple(self._intake.layout.sides)

    @property
    def n_committed(self) -> int:
        """How many snapshots are committed. Those that still wait for the background thread do not count."""
        return self._committer.header.n_committed

    @property
    def layer_grams(self) -> bool:
        """Whether the dump keeps the Gram of every layer."""
        return self._intake.layout.layer_grams

    @property
    def stream_committed(self) -> int:
        """How many stream collects are committed."""
        return self._committer.header.stream_committed

    def record_minibatch(
        self,
        minibatch: int,
        *,
        slabs: Given | None = None,
        grams: Given | None = None,
        layer_grams: Given | None = None,
        scalars: Given | None = None,
        present: Any = None,
    ) -> None:
        """Add one dumped minibatch to the current snapshot. The values are copied before the call returns.

        Args:
            minibatch: index of the minibatch within the snapshot, 0 to M - 1.
            slabs: side -> J (K, P): numpy, or torch on any device. A row that is not finite is kept and flagged.
            grams: side -> G (K, K). A side that is left out gets the sum of its layers' Grams, or G of its slab.
            layer_grams: side -> the Gram of each layer (L, K, K), in the order of `sides` of `create`. Where the dump
                keeps them and a side is left out, the background thread computes them from the slab.
            scalars: a value for each declared minibatch scalar, in the declared shape.
            present: (K,), whether each task took part in the minibatch; None if all did. Whatever is given for an
                absent task is replaced by NaN. Needs `absences` of `create`.

        Raises:
            DumpError: a value is unknown, missing or has another shape; or the background thread failed.
        """
        self._check_open()
        sample = Sample(dict(slabs or {}), dict(grams or {}), dict(layer_grams or {}), dict(scalars or {}), present)
        self._intake.take_minibatch(minibatch, sample)

    def start_writing(self) -> None:
        """Let the background thread write the minibatches recorded so far, which frees their buffers.

        Use it in a loop whose minibatches lie far apart. Without this call they wait for the commit, so that writing
        one minibatch does not slow down the copy of the next. In both cases no reader sees them before the commit.

        Raises:
            DumpError: the background thread failed.
        """
        self._check_open()
        self._intake.hand_over()

    def commit_snapshot(self, *, step: int, collect: int | None = None, scalars: Given | None = None) -> None:
        """End the current snapshot. The background thread commits it once it is written.

        Args:
            step: steps taken so far, a whole number. It must be larger than that of the snapshot before.
            collect: index of the rollout phase, where the dump counts environment steps; None for the index of the
                snapshot.
            scalars: a value for each declared snapshot scalar, in the declared shape.

        Raises:
            DumpError: a minibatch or scalar is missing or has another shape; the step is no whole number or does not
                rise; or the background thread failed.
        """
        self._check_open()
        self._intake.end_snapshot(step, collect, dict(scalars or {}))

    def record_stream(self, collect: int, *, grams: Given, step: int) -> None:
        """Add one collect to the Gram stream, and commit it.

        Args:
            collect: index of the collect, which is the number of collects recorded before it.
            grams: side -> Grams (n, K, K), for every side, with n from `stream` of `create`.
            step: steps taken so far, a whole number. It must be larger than that of the collect before.

        Raises:
            DumpError: the collect is out of order, the step does not rise, a Gram has another shape, no stream was
                planned, or the background thread failed.
        """
        self._check_open()
        self._intake.take_stream(collect, grams, step)

    def record(self, *, step: int, present: Any = None, **values: Any) -> None:
        """Record and commit one snapshot of one minibatch, for a training loop that has only gradients and numbers.

        Args:
            step: steps taken so far, a whole number. It must be larger than that of the record before.
            present: (K,), whether each task took part; None if all did. Needs `absences` of `create`.
            values: for every side its slab J (K, P), under its name. A dump without slabs also takes the Gram (K, K)
                under `<side>_gram`, or the Grams of the layers (L, K, K) under `<side>_layer_gram`, in place of the
                slab. And any further (K,), (K, K) or single numbers under names of your own. A name is declared by the
                first call that has it; calls without it read as NaN.

        Raises:
            DumpError: a value is unknown, missing or has another shape; the step is no whole number or does not rise;
                or the background thread failed.
        """
        self._check_open()
        layout = self._intake.layout
        if layout.minibatches != 1 or layout.snapshot_scalars:
            what = (
                "scalars of a snapshot" if layout.snapshot_scalars else f"{layout.minibatches} minibatches a snapshot"
            )
            raise DumpError(
                f"{self.path}: has {what}, and `record` takes one minibatch alone; "
                "use `record_minibatch` and `commit_snapshot`"
            )
        self._intake.check_step(step)
        sides = layout.sides
        values = {name: value for name, value in values.items() if value is not None}
        slabs, grams, layer_grams = (
            {side: values.pop(side + end) for side in sides if side + end in values} for end in SIDE_ENDS
        )
        self._intake.declare(values)
        self._intake.take_minibatch(0, Sample(slabs, grams, layer_grams, self._intake.completed(values), present))
        self.commit_snapshot(step=step)

    def without_room(self, names: Iterable[str]) -> list[str]:
        """Those of these names that `record` would refuse, because too many came up after the first record.

        Args:
            names: names of values, as `record` takes them.
        """
        return self._intake.without_room(names)

    def note(self, **attrs: Any) -> None:
        """Add attributes of the run to those that `create` was given, once everything recorded so far is committed.

        Args:
            attrs: values that JSON can hold. They replace the attributes of the same name.

        Raises:
            DumpError: a value cannot be stored, or writing failed.
        """
        plain = _json_able(attrs)
        self._check_open()
        self._background.run(lambda: self._committer.note(plain))

    def call_after_commit(self, action: Callable[[], object]) -> None:
        """Run `action` on the background thread once everything recorded so far is committed.

        The action does not run if the writing failed. If the action fails, the next call on this writer raises the
        failure.

        Args:
            action: a function without arguments. It must not call this writer.

        Raises:
            DumpError: the background thread failed.
        """
        self._check_open()
        self._background.submit(lambda: self._committer.call(action))

    def check(self) -> None:
        """Raise DumpError if the background thread failed."""
        self._background.check()

    def flush(self) -> None:
        """Wait until everything recorded so far is written, and every snapshot that was ended is committed.

        After the end of the writer there is nothing to wait for.

        Raises:
            DumpError: the background thread failed; or this process was forked from the one that writes.
        """
        if self._ended:
            self._background.check()
            return
        self._check_open()
        self._background.flush()

    def close(self) -> None:
        """End the dump: write the rest, trim the arrays to the committed length, and mark the dump complete.

        A second call does nothing. If the call raises, the dump can be resumed.

        Raises:
            DumpError: a snapshot was begun and not committed; writing failed; or this process was forked from the one
                that writes.
        """
        if self._ended:
            return
        try:
            self.flush()
            if self._intake.begun:
                raise DumpError(
                    f"{self._where}: snapshot {self._intake.snapshot} was begun and not committed; "
                    "commit it before close",
                    path=self._where,
                )
            self._background.run(self._committer.finish)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop writing and leave the dump open, with everything recorded so far. `resume` goes on. Raises nothing."""
        self._ended = self._ended or "has ended"
        ended(self._place, self._end_unclosed)
        try:
            self._background.stop()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _end_unclosed(self) -> None:
        """End this writer for its owner, who did not: at the end of the process, or for another writer."""
        self._ended = "was ended by another one of this process, or with the process"
        self.abandon()
        try:
            self._background.check()
        except DumpError as error:
            log.error("%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _check_open(self) -> None:
        if self._ended:
            raise DumpError(f"{self._where}: this writer {self._ended}; resume the dump to add to it", path=self._where)
        if self._process != os.getpid():
            raise DumpError(
                f"{self._where}: this process was forked from the one that writes; record in that one", path=self._where
            )
        self._background.check()


def _json_able(attrs: dict[str, Any]) -> dict[str, Any]:
    try:
        result = json.loads(json.dumps(attrs, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DumpError(
            f"`attrs` cannot be kept as JSON: {error}; give plain numbers, strings, lists and dicts"
        ) from error
    if not isinstance(result, dict):
        raise DumpError("`attrs` must be a dict")
    return result

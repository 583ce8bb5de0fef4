"""The dump of one recorder: made at the first record, gone on with, rewound, and stopped once if the disk fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from toppo.capture.errors import CaptureError
from toppo.common.errors import ToppoError, bad_option
from toppo.dump import (
    DumpError,
    DumpNotFoundError,
    DumpWriteError,
    DumpWriter,
    ParameterSlice,
    ScalarSpec,
    StepAxis,
    open_dump,
)
from toppo.dump.errors import cause
from toppo.dump.files import is_url, local_path
from toppo.dump.schema import Layout, with_offsets
from toppo.dump.zarr_store import ROOT

Exist = Literal["error", "resume", "new"]
"""What to do where the path is taken: refuse, go on with the dump, or take the next free name."""

STEP = StepAxis("step", "steps")
"""What a recorder counts."""

T = TypeVar("T")

_LAST = "last_step"
"""Key of the last step in the attribute `capture`. None while a run goes on, and after one that was not closed."""

log = logging.getLogger("toppo.capture")


class Place(NamedTuple):
    """Where a recorder writes.

    Attributes:
        path: the dump.
        steps: steps of the records that are there to go on with; None where a new dump is made.
        ended: the last step of the run that is there, recorded or not; None where that run was not closed.
    """

    path: str
    steps: tuple[int, ...] | None
    ended: int | None = None


def find_place(path: str | os.PathLike[str], exist: Exist) -> Place:
    """Where a recorder is to write.

    Args:
        path: the dump to make; a local path or an fsspec URL.
        exist: what to do where the path is taken.

    Raises:
        DumpError: the path is taken, and `exist` is "error"; or what is there is no dump.
        UsageError: `exist` is none of the three, or no dump can be made at the path.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise bad_option("path", path, "must be the path or URL of the dump to make, such as dumps/mine")
    if exist not in get_args(Exist):
        raise bad_option("exist", exist, f"must be one of {', '.join(get_args(Exist))}", get_args(Exist))
    target = str(path if is_url(path) else local_path(path))
    try:
        place = _find(target, exist)
        if not is_url(place.path):
            _check_writable(Path(place.path))
    except ToppoError:
        raise
    except OSError as error:
        raise bad_option("path", target, f"cannot be written ({cause(error)[0]}); take another path") from error
    return place


def _find(target: str, exist: Exist) -> Place:
    if not _taken(target):
        return Place(target, None)
    if exist == "resume":
        if not is_url(target) and not (Path(target) / ROOT).is_file():
            raise DumpError(
                f"{target}: is no store of a dump, so it cannot be resumed; give the dump, or take `exist='new'`",
                path=target,
            )
        dump = open_dump(target)
        steps = tuple(dump.steps.tolist())
        return Place(target, steps, _ended_at(dump.attrs, steps))
    if exist == "new":
        number = 2
        while _taken(f"{target}-{number}"):
            number += 1
        return Place(f"{target}-{number}", None)
    raise DumpError(
        f"{target}: already there; `exist='resume'` goes on with it, and `exist='new'` takes the next free name",
        path=target,
    )


def _taken(path: str) -> bool:
    if is_url(path):
        try:
            open_dump(path)
        except DumpNotFoundError:
            return False
        return True
    target = Path(path)
    return os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir()))


def _check_writable(target: Path) -> None:
    """Refuse a path at which no dump can be made, before the training begins."""
    real = target.resolve()
    there = next(folder for folder in real.parents if os.path.lexists(folder))
    for folder in (there, *([real] if real.exists() else [])):
        if not folder.is_dir():
            raise bad_option("path", target, f"{folder} is no directory; take a path in a directory")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise bad_option("path", target, f"{folder} is write-protected; take another path")


def _ended_at(attrs: Mapping[str, Any], steps: Sequence[int]) -> int | None:
    """The last step of a run, as `Log.end` left it in the dump; None where it is unknown."""
    capture = attrs.get("capture")
    last = capture.get(_LAST) if isinstance(capture, Mapping) else None
    return last if type(last) is int and last >= max(steps, default=0) else None


class Log:
    """Writes the records of one run. No dump is made before the first record, because its layout is found out then.

    Args:
        place: where to write.
        writes: whether this process writes. If not, every call does nothing.

    Attributes:
        path: the dump that is written.
        last: step of the last record, which decides what is due; None where there is none.
    """

    def __init__(self, place: Place, writes: bool) -> None:
        self.path, self._steps, self._ended = place
        self.last: int | None = self._steps[-1] if self._steps else None
        self._writes = writes
        self._back_to: int | None = None
        self._writer: DumpWriter | None = None
        self._failed = False
        self._said_no_room = False

    def first_step(self) -> int:
        """Number of the first step of this run, where the loop gives none: the one after the last of the run before.

        Raises:
            CaptureError: the run before was not closed, so its last step is unknown.
        """
        if self._ended is not None:
            return self._ended + 1
        if not self._steps:
            return 0
        raise CaptureError(
            f"{self.path}: the run to resume was not closed, so its last step is unknown (the last record is of step "
            f"{self._steps[-1]}); give the number of every step, as in `recorder.backward(losses, step=step)`, "
            "or load the recorder's state"
        )

    def due(self, step: int, every: int) -> bool:
        """Whether a step is recorded: the first one, and each one that enters a new multiple of `every`.

        Args:
            step: number of the step.
            every: steps between two records.
        """
        return self.last is None or step // every > self.last // every

    def rewind(self, step: int) -> None:
        """Forget what was recorded at a step and later, because a resumed run does these steps again.

        The records are removed when the dump is opened, after it is known to be of this run.

        Args:
            step: number of the first step of the resumed run.
        """
        if self._steps and self._steps[-1] >= step:
            kept = [one for one in self._steps if one < step]
            self.last = kept[-1] if kept else None
            self._back_to = step
            if self._writes:
                removed = len(self._steps) - len(kept)
                log.warning("%s: going back to step %d; %d later records are removed", self.path, step, removed)

    def held(self) -> dict[str, list[ParameterSlice]] | None:
        """Side -> the parameters in the dump that is resumed; None for a new dump, or if another process writes."""
        if self._steps is None or not self._writes:
            return None
        dump = open_dump(self.path)
        return {side: list(dump.parameters(side)) for side in dump.sides}

    def open(
        self,
        *,
        tasks: Sequence[str],
        sides: Mapping[str, Sequence[ParameterSlice]],
        slabs: bool,
        scalars: Mapping[str, ScalarSpec],
        attrs: Mapping[str, Any],
    ) -> None:
        """Make the dump, or go on with it.

        Raises:
            CaptureError: the dump that is there holds other tasks or parameters.
            DumpError: the dump cannot be written.
        """
        if not self._writes:
            return
        if self._steps is None:
            self._writer = self._writable(
                lambda: DumpWriter.create(
                    self.path,
                    tasks=tasks,
                    sides=sides,
                    slabs=slabs,
                    layer_grams=True,
                    absences=True,
                    step=STEP,
                    minibatch_scalars=scalars,
                    attrs=attrs,
                )
            )
        else:
            self._writable(lambda: self._check_layout(tasks, sides, slabs))
            self._writer = self._writable(lambda: DumpWriter.resume(self.path, step=self._back_to))
            self._note(self._writer, None)  # the run that this one goes on with has its last step no more

    def _writable(self, act: Callable[[], T]) -> T:
        """What `act` returns. An error of the file system becomes one line."""
        try:
            return act()
        except DumpError:
            raise
        except OSError as error:
            reason, mend = cause(error)
            raise DumpWriteError(
                f"{self.path}: the recording cannot begin ({reason}); {mend}, or take another path", path=self.path
            ) from error

    def _check_layout(self, tasks: Sequence[str], sides: Mapping[str, Sequence[ParameterSlice]], slabs: bool) -> None:
        """Raise CaptureError unless the dump that is there holds these."""
        dump = open_dump(self.path)
        for what, there, here in (
            ("tasks", list(dump.tasks), list(tasks)),
            ("sides", list(dump.sides), list(sides)),
            ("slabs", dump.has_slabs, slabs),
        ):
            if there != here:
                raise self._other(what, there, here)
        for side, parts in sides.items():
            old, new = ([(part.name, part.shape) for part in some] for some in (dump.parameters(side), parts))
            if new != old:
                raise self._other(f"parameters of {side}", old, new)

    def _other(self, what: str, there: Any, here: Any) -> CaptureError:
        return CaptureError(
            f"{self.path}: holds other {what} than this run ({_difference(there, here)}); "
            "take another path, or `exist='new'`"
        )

    def write(self, step: int, *, present: Any = None, **values: Any) -> None:
        """Record one step. If the disk fails, say so once and record no more: the training goes on.

        Args:
            step: number of the step.
            present: (K,), whether each task took part.
            values: what else `DumpWriter.record` takes.
        """
        if self._writer is None or self._failed:
            return
        try:
            refused = self._writer.without_room(values)
            kept = {name: value for name, value in values.items() if name not in refused}
            self._writer.record(step=step, present=present, **kept)
        except DumpWriteError as error:
            self._fail(error)
            return
        if refused and not self._said_no_room:
            self._said_no_room = True
            log.warning(
                "%s: %r is not recorded, nor is any other new name; give each number that `backward` is to record from "
                "the first recorded step on",
                self.path,
                refused[0],
            )

    def flush(self) -> None:
        """Wait until every record is on disk."""
        if self._writer is not None and not self._failed:
            try:
                self._writer.flush()
            except DumpError as error:
                self._fail(error)

    def _fail(self, error: DumpError) -> None:
        self._failed = True
        log.error("recording has stopped, and the training goes on: %s", error)
        if self._writer is not None:
            self._writer.abandon()

    def end(self, complete: bool, last: int | None) -> bool:
        """Write what is left and close the dump. Return whether this run has recorded in it.

        Args:
            complete: whether the run came to its end. If not, the dump stays open to be resumed.
            last: the last step of the run, recorded or not. None if there was none.
        """
        if not self._writes or self._failed or last is None:
            return False
        recorded = self._writer is not None
        try:
            if self._writer is None:
                if self._steps is None:
                    return False
                # No step was due, so nothing is known to be wrong with the old records, and they stay.
                self._writer = self._writable(lambda: DumpWriter.resume(self.path))
                last = last if self._back_to is None else None
            self._note(self._writer, last)
            if complete:
                self._writer.close()
            else:
                self._writer.flush()
                self._writer.abandon()
        except DumpError as error:
            self._fail(error)
            return False
        return recorded

    def _note(self, writer: DumpWriter, last: int | None) -> None:
        """Leave the last step of this run in the dump, for a run that resumes it."""
        capture = self._writable(lambda: open_dump(self.path)).attrs.get("capture")
        if isinstance(capture, Mapping) and capture.get(_LAST) != last:
            writer.note(capture={**capture, _LAST: last})


def check_names(tasks: Sequence[str], sides: Sequence[str]) -> None:
    """Raise DumpError if a dump of a recorder cannot have these names.

    Args:
        tasks: K names.
        sides: names of groups of parameters.
    """
    Layout(
        tasks=tuple(tasks),
        sides={side: with_offsets(1) for side in sides},
        minibatches=1,
        minibatch_scalars={"loss": ScalarSpec(("task",))},
        snapshot_scalars={},
        layer_grams=True,
        absences=True,
        step=STEP,
    ).check_recordable()


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, list) and len(there) == len(here):
        there, here = next((a, b) for a, b in zip(there, here, strict=True) if a != b)
    return f"{there} there, {here} here" if not isinstance(there, list) else f"{len(there)} there, {len(here)} here"

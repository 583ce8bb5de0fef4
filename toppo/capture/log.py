"""The dump of one recorder: made at the first record, gone on with, rewound, and stopped once if the disk fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from toppo.capture.errors import CaptureError
from toppo.common.errors import bad_option
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
from toppo.dump.files import is_url, local_path

Exist = Literal["error", "resume", "new"]
"""What to do where the path is taken: refuse, go on with the dump, or take the next free name."""

log = logging.getLogger("toppo.capture")


class Place(NamedTuple):
    """Where a recorder writes.

    Attributes:
        path: the dump.
        steps: steps of the records that are there to go on with; None where a new dump is made.
    """

    path: str
    steps: tuple[int, ...] | None


def find_place(path: str | os.PathLike[str], exist: Exist) -> Place:
    """Where a recorder is to write.

    Args:
        path: the dump to make; a local path or an fsspec URL.
        exist: what to do where the path is taken.

    Raises:
        DumpError: the path is taken, and `exist` is "error"; or what is there is no dump.
        UsageError: `exist` is none of the three.
    """
    if exist not in get_args(Exist):
        raise bad_option("exist", exist, f"must be one of {', '.join(get_args(Exist))}", get_args(Exist))
    target = str(path if is_url(path) else local_path(path))
    if not _taken(target):
        return Place(target, None)
    if exist == "resume":
        return Place(target, tuple(open_dump(target).steps.tolist()))
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
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


class Log:
    """Writes the records of one run. No dump is made before the first record, because its layout is found out then.

    Args:
        place: where to write.
        writes: whether this process writes. If not, every call does nothing.

    Attributes:
        path: the dump that is written.
        last: step of the last record; None where there is none.
    """

    def __init__(self, place: Place, writes: bool) -> None:
        self.path, self._steps = place
        self.last: int | None = self._steps[-1] if self._steps else None
        self._writes = writes
        self._back_to: int | None = None
        self._writer: DumpWriter | None = None
        self._failed = False

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
            DumpError: the dump that is there holds other tasks or parameters, or cannot be written.
        """
        if not self._writes:
            return
        if self._steps is None:
            self._writer = DumpWriter.create(
                self.path,
                tasks=tasks,
                sides=sides,
                slabs=slabs,
                layer_grams=True,
                absences=True,
                step=StepAxis("step", "steps"),
                minibatch_scalars=scalars,
                attrs=attrs,
            )
            return
        dump = open_dump(self.path)
        for what, there, here in (
            ("tasks", list(dump.tasks), list(tasks)),
            ("sides", list(dump.sides), list(sides)),
            ("slabs", dump.has_slabs, slabs),
            *(
                (
                    f"parameters of {side}",
                    [(part.name, part.shape) for part in dump.parameters(side)],
                    [(part.name, part.shape) for part in parts],
                )
                for side, parts in sides.items()
                if side in dump.sides
            ),
        ):
            if there != here:
                raise CaptureError(
                    f"{self.path}: holds other {what} than this run ({_difference(there, here)}); "
                    "take another path, or `exist='new'`"
                )
        self._writer = DumpWriter.resume(self.path, step=self._back_to)

    def write(self, step: int, **values: Any) -> None:
        """Record one step. If the disk fails, say so once and record no more: the training goes on.

        Args:
            step: number of the step.
            values: what `DumpWriter.record` takes.
        """
        self.last = step
        if self._writer is None or self._failed:
            return
        try:
            self._writer.record(step=step, **values)
        except DumpWriteError as error:
            self._fail(error)

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

    def end(self, complete: bool) -> bool:
        """Write what is left and close the dump. Return whether there is a dump to look at.

        Args:
            complete: whether the run came to its end. If not, the dump stays open to be resumed.
        """
        if self._writer is None or self._failed:
            return False
        try:
            if complete:
                self._writer.close()
            else:
                self._writer.flush()
                self._writer.abandon()
        except DumpError as error:
            self._fail(error)
            return False
        return True


def _difference(there: Any, here: Any) -> str:
    if isinstance(there, list) and len(there) == len(here):
        there, here = next((a, b) for a, b in zip(there, here, strict=True) if a != b)
    return f"{there} there, {here} here" if not isinstance(there, list) else f"{len(there)} there, {len(here)} here"

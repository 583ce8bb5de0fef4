"""The request to a command: dumps, and which part of them. The command line, manifests and Python all make it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypedDict, Unpack

from toppo.common.cluster import check_cluster, is_cluster
from toppo.dump import Dump, open_dump
from toppo_diag.errors import UsageError, bad_option

Source = str | os.PathLike[str] | Dump
"""A run directory, a dump (.zarr), an archive (.h5), a URL, or a dump that is open already."""
Sources = Source | Sequence[Source]
One = Annotated[Sources, "one"]
"""The dump of a command that takes one at a time. A list of one is taken too."""
Texts = str | int | float | Sequence[str | int | float] | None
"""One text or several: "early", "early,late" and ["early", "late"] are all accepted. Numbers are accepted too."""


class Selection(TypedDict, total=False):
    """The options of every command that reads dumps. Give at most one of `stage`, `snapshot` and `steps`.

    Attributes:
        side: the group of parameters to look at, by its name in the dump. `info` lists them.
        stage: early, mid, late, separated by commas: the first, middle and last snapshot. In a run of TOPPO's trainer
            that reaches 7.5 million steps, they are those nearest to 0.5, 4.5 and 7.5 million steps, as in the paper.
        snapshot: snapshots counted from 0, such as 0,3,-1, or a range with both ends, such as 2:5.
        steps: the snapshots nearest to these steps, such as 500000,4500000, or all in a range, such as 500000:8000000.
        tasks: only these tasks, separated by commas.
        layer: only the gradient of one parameter ('0.weight') or of one layer ('0').
        minibatch: only this minibatch of each snapshot, counted from 0; by default all are used.
        scheduler: where gradients are read: serial, threads:N, processes:N, the address of a dask scheduler
            (tcp://host:port), or its scheduler file. Anyone who can reach a dask scheduler can run code on it.
    """

    side: str | None
    stage: Texts
    snapshot: Texts
    steps: Texts
    tasks: Texts
    layer: str | None
    minibatch: int | None
    scheduler: str


@dataclass(frozen=True)
class Request:
    """Dumps, and a `Selection` of them in its canonical form.

    Attributes:
        dumps: at least one.
        side: None leaves it to the command.
        stage: out of early, mid, late.
        snapshot: indices from 0 (negative ones from the end), or ranges "a:b" that include both ends.
        steps: steps whose nearest snapshots are taken, or ranges "a:b" that include both ends.
        tasks: the tasks to keep, in this order; () keeps all.
        layer: a parameter ("2.weight"), or the common start of several ("2"). Only its columns count.
        minibatch: the only minibatch of each snapshot to take, from 0 (negative ones from the end); None takes all.
        scheduler: see `toppo_diag.reading.schedulers`.
    """

    dumps: tuple[Source, ...]
    side: str | None = None
    stage: tuple[str, ...] = ()
    snapshot: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    layer: str | None = None
    minibatch: int | None = None
    scheduler: str = "serial"

    @classmethod
    def of(cls, dumps: Sources, **selection: Unpack[Selection]) -> Request:
        """The request that is made from a user's options.

        Raises:
            UsageError: no dump, an unknown option, or two options that choose snapshots.
        """
        if unknown := set(selection) - set(Selection.__annotations__):
            raise UsageError(f"unknown option `{sorted(unknown)[0]}`; known: {', '.join(Selection.__annotations__)}")
        request = cls(
            dumps=as_sources(dumps),
            side=selection.get("side"),
            stage=as_texts(selection.get("stage")),
            snapshot=as_texts(selection.get("snapshot")),
            steps=as_texts(selection.get("steps")),
            tasks=as_texts(selection.get("tasks")),
            layer=selection.get("layer"),
            minibatch=selection.get("minibatch"),
            scheduler=selection.get("scheduler", "serial"),
        )
        given = [name for name in ("stage", "snapshot", "steps") if getattr(request, name)]
        check_scheduler(request.scheduler)
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` both choose snapshots; give one of them")
        return request

    @property
    def chooses_snapshots(self) -> bool:
        """Whether some of a dump's snapshots were asked for, rather than all."""
        return bool(self.stage or self.snapshot or self.steps)

    def open_all(self) -> list[Dump]:
        """Every dump, opened.

        Raises:
            DumpError: there is no dump at a path, or it cannot be read.
        """
        return [opened(source) for source in self.dumps]

    def open_one(self, command: str) -> Dump:
        """The only dump, opened, for a command that draws one dump at a time.

        Raises:
            UsageError: there are several dumps.
            DumpError: there is no dump at the path, or it cannot be read.
        """
        if len(self.dumps) != 1:
            raise UsageError(f"{command} draws one dump at a time, not {len(self.dumps)}; run it once for each")
        return opened(self.dumps[0])


def opened(source: Source) -> Dump:
    """A dump, opened unless it is open already."""
    return source if isinstance(source, Dump) else open_dump(source)


def as_sources(sources: Sources) -> tuple[Source, ...]:
    """One source or several as a tuple.

    Raises:
        UsageError: there is no source, or one that is neither a path nor a dump.
    """
    several = (sources,) if isinstance(sources, (str, os.PathLike, Dump)) else tuple(sources)
    if not several:
        raise UsageError("no dump was given; give a run directory, a .zarr, an .h5 or a URL")
    for source in several:
        if not isinstance(source, (str, os.PathLike, Dump)):
            raise UsageError(f"{source!r} is neither a path nor a dump; give a run directory, a .zarr, an .h5 or a URL")
    return several


def as_paths(runs: Sources) -> tuple[str, ...]:
    """Runs as paths. An open dump stands for the run that it belongs to.

    Raises:
        UsageError: there is no run, or one that is neither a path nor a dump.
    """
    return tuple(run.path if isinstance(run, Dump) else os.fspath(run) for run in as_sources(runs))


def as_texts(value: object) -> tuple[str, ...]:
    """The texts of a list option, which may be given as "a,b", as a list, or as one number; () for None.

    Raises:
        UsageError: it is only separators and spaces.
    """
    if value is None:
        return ()
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    texts = tuple(str(item).strip() for item in items if str(item).strip())
    if value and not texts:
        raise UsageError(f"{value!r} names nothing; give a name, or leave the option out")
    return texts


MOST_WORKERS = 1024
"""The most threads or processes that a scheduler may be asked for."""


def check_scheduler(scheduler: str) -> int:
    """The number of workers of a scheduler; 0 for serial and for a cluster. Called before any work, as a check.

    Raises:
        UsageError: an unknown scheduler, or a wrong number of workers.
    """
    kind, _, number = scheduler.partition(":")
    if scheduler == "serial":
        return 0
    if is_cluster(scheduler):
        check_cluster(scheduler)
        return 0
    if kind not in ("threads", "processes"):
        raise bad_option(
            "scheduler", scheduler, "give serial, threads:N, processes:N, tcp://host:port or a scheduler file (.json)"
        )
    if number and (not re.fullmatch("[0-9]{1,4}", number) or not 1 <= int(number) <= MOST_WORKERS):
        raise bad_option("scheduler", scheduler, f"the number of workers must be 1 or more, up to {MOST_WORKERS}")
    return int(number) if number else os.cpu_count() or 1


_PART = 48
"""Characters of one part of a file's name. File systems allow 255 bytes for the whole name."""


def stem(*parts: str) -> str:
    """The name of a product's files: the parts, made safe, joined by dashes. Empty parts are left out."""
    return "-".join(file_part(part) for part in parts if part)


def several(names: Sequence[str]) -> str:
    """Names as one part of a file's name: joined by +, or the first one and how many more where they are too long."""
    joined = "+".join(names)
    if len(joined) <= _PART or len(names) < 2:
        return joined
    return f"{names[0][:_PART]}+{len(names) - 1}more-{_digest(joined)}"


def file_part(text: str) -> str:
    """A text as a part of a file's name: without separators and control characters, and not too long.

    A text that has to be changed gets the start of its digest, so that different texts keep different names.
    """
    spelled = text.replace(":", "-").replace(";", "+")
    safe = re.sub(r"[^\w.+=,-]", "_", spelled)
    if safe == spelled and safe.strip(".") and len(safe.encode()) <= 3 * _PART and len(safe) <= 2 * _PART:
        return safe
    return f"{safe[:_PART]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def name_problem(name: str) -> str | None:
    """What is wrong with a name for files, such as that of a manifest's entry; None if it is a plain name.

    A plain name is one that cannot leave its directory and that every file system takes.
    """
    if not isinstance(name, str) or not name:
        return "give a name"
    if re.search(r'[/\\:*?"<>|]', name) or not name.isprintable():
        return 'is not a plain file name: leave out / \\ : * ? " < > | and control characters'
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "is not a plain file name: it begins or ends with a dot or a space"
    if len(name.encode(errors="surrogateescape")) > 200:
        return "is too long for a file name: give at most 200 bytes"
    return None

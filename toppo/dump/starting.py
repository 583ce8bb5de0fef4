"""Making the store of a new dump, and cutting the store of an old dump back to where its run goes on."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toppo.dump import zarr_store
from toppo.dump.endings import take_over
from toppo.dump.errors import DumpError
from toppo.dump.files import Files, LocalFiles, files_at, is_url, local_path, place_of, remove_tree
from toppo.dump.given import whole_number
from toppo.dump.header import Header
from toppo.dump.lock import WriterLock
from toppo.dump.manifest import stored
from toppo.dump.zarr_source import ZarrSource


class Place(NamedTuple):
    """Where a writer writes.

    Attributes:
        files: the store.
        header: what is committed in the store.
        lock: the lock that is held, to be released at the end; None for a URL, which has no lock.
        last: steps of the last committed (snapshot, stream collect); None where there is none.
    """

    files: Files
    header: Header
    lock: WriterLock | None
    last: tuple[int | None, int | None] = (None, None)


class GoBack(NamedTuple):
    """Where an old dump goes on.

    Attributes:
        step: what was recorded at this step or later is not kept; None keeps all.
        snapshots: how many committed snapshots to keep; None for all.
        stream: how many committed stream collects to keep; None for all.
    """

    step: int | None = None
    snapshots: int | None = None
    stream: int | None = None


def start(path: str | os.PathLike[str], header: Header) -> Place:
    """A new store, with every array made and nothing committed.

    A local store is built under another name and then renamed, so that no reader ever sees half a store.

    Args:
        path: local path or fsspec URL of the store.
        header: header of the new dump.

    Raises:
        DumpError: the path is taken.
        OSError: the place cannot be written.
    """
    if is_url(path):
        files = files_at(path)
        if files.read(zarr_store.ROOT) is not None:
            raise DumpError(f"{files.where}: already there; resume it or choose another place", path=files.where)
        _build(files, header)
        return Place(files, header, None)
    target = local_path(path)
    taken = DumpError(f"{target}: already there; resume it or choose another path", path=str(target))
    if not _is_free(target):
        raise taken
    real = target.resolve()  # an empty directory may be a link to another disk
    real.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = WriterLock(target)
    except DumpError:
        raise taken from None
    try:
        _build_at(real, header, taken)
    except BaseException:
        lock.release()
        raise
    return Place(LocalFiles(target), header, lock)


def go_back(path: str | os.PathLike[str], wanted: GoBack) -> Place:
    """An old store, after everything past a point was deleted.

    Args:
        path: local path or fsspec URL of the store.
        wanted: the point.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: fewer are committed than asked for, the metadata are damaged, or another process is writing the dump.
            A writer of this process is ended instead: it belongs to a cell or call that did not close it.
    """
    if wanted.step is not None and whole_number(wanted.step) is None:
        raise DumpError(f"`step={wanted.step!r}`: must be a whole number, 0 or more; give the step to go on at")
    files = files_at(path)
    zarr_store.read_header(files)  # before the lock, so that a place without a dump gets no lock file
    take_over(place_of(files))
    lock = WriterLock(files.root) if isinstance(files, LocalFiles) else None
    try:
        source = ZarrSource(files)  # reads the header again: a writer may just have ended
        kept = _kept(source, wanted)
        last = _last_steps(source, kept)
        header = source.header.at(*kept, chain=source.links(*kept))
        for name, what in source.damaged_metadata():
            raise DumpError(
                f"{files.where}: cannot resume, {name}: {what}; restore its zarr.json from a copy", path=files.where
            )
        documents = zarr_store.read_documents(files, stored(header, (1, 1)))
        # The marker comes first, so that no reader sees what is deleted below.
        zarr_store.write_root(files, header, documents)
        zarr_store.set_length(files, documents, header.allocated)
        zarr_store.clear_uncommitted(files, header)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return Place(files, header, lock, last)


def _kept(source: ZarrSource, wanted: GoBack) -> tuple[int, int]:
    """How many (snapshots, stream collects) to keep."""
    kept = []
    for what, count, committed, steps in zip(
        ("snapshots", "stream collects"), wanted[1:], source.header.committed, _step_arrays(source), strict=True
    ):
        if count is not None and not 0 <= count <= committed:
            raise DumpError(
                f"{source.where}: cannot resume at {count} {what}, it holds {committed}; "
                "resume from an older checkpoint, or start again",
                path=source.where,
            )
        number = committed if count is None else count
        if wanted.step is not None and steps is not None:
            later = np.flatnonzero(source.read(steps, (slice(0, number),)) >= int(wanted.step))
            number = int(later[0]) if len(later) else number
        kept.append(number)
    return kept[0], kept[1]


def _last_steps(source: ZarrSource, kept: tuple[int, int]) -> tuple[int | None, int | None]:
    snapshot, collect = (
        int(source.read(steps, (count - 1,))) if count and steps is not None else None
        for steps, count in zip(_step_arrays(source), kept, strict=True)
    )
    return snapshot, collect


def _step_arrays(source: ZarrSource) -> tuple[str, str | None]:
    layout = source.header.layout
    return layout.step.name, None if layout.stream_entries is None else layout.stream_step


def _is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty directory."""
    return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))


def _build_at(real: Path, header: Header, taken: DumpError) -> None:
    """Build a store in a directory of its own, and rename it. Of several that do so at once, one succeeds."""
    building = real.with_name(f".{real.name}.{secrets.token_hex(8)}.creating")
    building.mkdir()
    try:
        _build(LocalFiles(building), header)
        if not _is_free(real):  # somebody else made it meanwhile
            raise taken
        if os.name == "nt" and real.exists():
            real.rmdir()  # Windows renames to no directory, not even an empty one
        try:
            building.rename(real)
        except OSError as error:
            raise error if _is_free(real) else taken from None
    except BaseException:
        remove_tree(building)
        raise


def _build(files: Files, header: Header) -> None:
    zarr_store.create_arrays(files, header)
    # The root comes last, because the dump exists from then on.
    zarr_store.write_root(files, header, zarr_store.read_documents(files, stored(header, (1, 1))))

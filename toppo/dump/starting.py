"""Making the store of a new dump, and cutting the store of an old dump back to where its run goes on."""

from __future__ import annotations

import os
from typing import NamedTuple

from toppo.dump import zarr_store
from toppo.dump.errors import DumpError
from toppo.dump.files import Files, LocalFiles, files_at, is_url, local_path, remove_tree
from toppo.dump.lock import WriterLock
from toppo.dump.manifest import stored
from toppo.dump.schema import Header
from toppo.dump.zarr_source import ZarrSource


class Place(NamedTuple):
    """Where a writer writes.

    Attributes:
        files: the store.
        header: what is committed in the store.
        lock: the lock that is held, to be released at the end; None for a URL, which has no lock.
    """

    files: Files
    header: Header
    lock: WriterLock | None


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
    if target.exists():
        raise taken
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(target)
    try:
        if target.exists():  # somebody else made it meanwhile
            raise taken
        building = target.with_name(target.name + ".creating")
        remove_tree(building)
        building.mkdir()
        _build(LocalFiles(building), header)
        building.rename(target)
    except BaseException:
        lock.release()
        raise
    return Place(LocalFiles(target), header, lock)


def go_back(path: str | os.PathLike[str], snapshots: int | None, stream: int | None) -> Place:
    """An old store, after everything past a point was deleted.

    Args:
        path: local path or fsspec URL of the store.
        snapshots: how many committed snapshots to keep; None for all.
        stream: how many committed stream collects to keep; None for all.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: fewer are committed than asked for, the metadata are damaged, or another process is writing the dump.
    """
    files = files_at(path)
    zarr_store.read_header(files)  # before the lock, so that a place without a dump gets no lock file
    lock = WriterLock(files.root) if isinstance(files, LocalFiles) else None
    try:
        header = zarr_store.read_header(files)  # again: a writer may just have ended
        kept = []
        for what, wanted, committed in zip(
            ("snapshots", "stream collects"), (snapshots, stream), header.committed, strict=True
        ):
            if wanted is not None and not 0 <= wanted <= committed:
                raise DumpError(
                    f"{files.where}: cannot resume at {wanted} {what}, it holds {committed}; "
                    "resume from an older checkpoint, or start again",
                    path=files.where,
                )
            kept.append(committed if wanted is None else wanted)
        source = ZarrSource(files)
        header = header.at(kept[0], kept[1], chain=source.links(kept[0], kept[1]))
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
    return Place(files, header, lock)


def _build(files: Files, header: Header) -> None:
    zarr_store.create_arrays(files, header)
    # The root comes last, because the dump exists from then on.
    zarr_store.write_root(files, header, zarr_store.read_documents(files, stored(header, (1, 1))))

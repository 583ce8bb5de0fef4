"""Opening a dump, from any kind of path that leads to one."""

from __future__ import annotations

import os

from toppo.common.names import suggested_run
from toppo.dump.errors import DumpError, DumpNotFoundError
from toppo.dump.files import Files, LocalFiles, RemoteFiles, is_url, local_path
from toppo.dump.h5_source import H5Source
from toppo.dump.reader import Dump
from toppo.dump.zarr_source import ZarrSource
from toppo.dump.zarr_store import ROOT


def open_dump(path: str | os.PathLike[str]) -> Dump:
    """What a run has recorded, also while the run still records.

    Args:
        path: a run directory that holds dump.zarr, the .zarr itself, an exported archive (.h5), an fsspec URL of a
            store, or a `Dump`. A `Dump` is opened again, to see what was added since.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: there is something other than a dump, its schema version is another one, or its header is damaged.
    """
    if is_url(path):
        url = os.fspath(path).rstrip("/")
        return Dump(ZarrSource(_first_with_root(RemoteFiles(url), RemoteFiles(url + "/dump.zarr"))))
    place = local_path(path)
    if place.is_file():
        return Dump(H5Source(place))
    if place.exists() and not place.is_dir():
        raise DumpError(
            f"{place}: neither a file nor a directory; give a run directory, its dump.zarr or an exported .h5",
            path=str(place),
        )
    if not place.is_dir():
        raise DumpNotFoundError(
            f"{place}: no such file or directory; "
            + suggested_run(place, "give a run directory, its dump.zarr or an exported .h5"),
            path=str(place),
        )
    return Dump(ZarrSource(_first_with_root(LocalFiles(place), LocalFiles(place / "dump.zarr"))))


def _first_with_root(files: Files, nested: Files) -> Files:
    if files.read(ROOT) is not None:
        return files
    if nested.read(ROOT) is not None:
        return nested
    if files.read("config.toml") is not None:  # of `toppo train`, which writes it first
        raise DumpNotFoundError(
            f"{files.where}: nothing is recorded yet; `toppo resume {files.where}` starts the run", path=files.where
        )
    return files

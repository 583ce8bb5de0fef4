"""A run's own record beside its dump: its configuration and its logs."""

from __future__ import annotations

import os

from toppo.dump.errors import DumpError, DumpNotFoundError
from toppo.dump.files import Files, LocalFiles, RemoteFiles, is_url, local_path
from toppo.dump.h5_source import archived_logs
from toppo.dump.log_files import LOGS, as_text


def run_logs(path: str | os.PathLike[str]) -> dict[str, str]:
    """The configuration and logs of a run: file name -> text.

    A log that does not exist is left out. While the run is live, the last line of a log may be cut short.

    Args:
        path: a run directory, its dump.zarr, an exported archive (.h5), or an fsspec URL of one of the first two.

    Raises:
        DumpNotFoundError: there is no such file or directory.
        DumpError: the archive or a log cannot be read.
    """
    if is_url(path):
        files: Files = RemoteFiles(os.fspath(path).rstrip("/").removesuffix("/dump.zarr"))
    else:
        place = local_path(path)
        if place.is_file():
            return archived_logs(place)
        if place.exists() and not place.is_dir():
            raise DumpError(
                f"{place}: neither a file nor a directory; give a run directory or an exported .h5", path=str(place)
            )
        if not place.is_dir():
            raise DumpNotFoundError(
                f"{place}: no such file or directory; give a run directory or an exported .h5", path=str(place)
            )
        files = LocalFiles(place.parent if place.name == "dump.zarr" else place)
    return as_text({name: data for name in LOGS if (data := files.read(name)) is not None}, files.where)

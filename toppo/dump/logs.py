"""A run's own record beside its dump: its configuration and its logs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from toppo.common.names import suggested_run
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
                f"{place}: no such file or directory; "
                + suggested_run(place, "give a run directory or an exported .h5"),
                path=str(place),
            )
        files = LocalFiles(place.parent if place.name == "dump.zarr" else place)
    return as_text({name: data for name in LOGS if (data := files.read(name)) is not None}, files.where)


def of_trainer(attrs: Mapping[str, Any]) -> bool:
    """Whether a dump is of `toppo train`, so that the logs beside it are too."""
    recorded = attrs.get("config")
    return isinstance(recorded, Mapping) and "benchmark" in recorded


def config_differences(text: str, attrs: Mapping[str, Any]) -> list[str]:
    """How a run's config.toml differs from the configuration in its dump, such as "clip is 0.3, in the dump 0.2".

    The device may differ, because a run can go on on another one. Only runs of the trainer are compared: their dump
    names the benchmark.

    Args:
        text: the content of config.toml.
        attrs: what the dump records about its run, `Dump.attrs`.
    """
    if not of_trainer(attrs):
        return []
    recorded = attrs["config"]
    try:
        config = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return [f"it is no TOML ({error})"]
    differ = [key for key in recorded if key != "device" and config.get(key) != recorded[key]]
    return [f"{key} is {config.get(key, 'missing')}, in the dump {recorded[key]}" for key in differ]

"""A run's own record beside its dump: configuration and logs. Small text files, which an archive carries along."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.files import Files, LocalFiles, RemoteFiles, is_url, local_path
from toppo.dump.schema import DumpError

LOGS = ("config.toml", "progress.jsonl", "evaluation.jsonl")
"""What an archive keeps of a run directory, byte for byte."""


def run_logs(path: str | os.PathLike[str]) -> dict[str, str]:
    """The configuration and logs of a run, by file name; a log that is not there is left out. The last line of a live
    run's log may be half a line.

    Args:
        path: a run directory, its dump.zarr, an exported archive, or an fsspec URL of either of the first two.

    Raises:
        DumpError: nothing is there, or it cannot be read.
    """
    if not is_url(path):
        place = local_path(path)
        if place.is_file():
            from toppo.dump.archive import archived_logs

            return _as_text(archived_logs(place), str(place))
        if not place.is_dir():
            raise DumpError(f"{place}: no such file or directory; give a run directory or an exported .h5")
        files: Files = LocalFiles(place.parent if place.name == "dump.zarr" else place)
    else:
        files = RemoteFiles(str(path).rstrip("/").removesuffix("/dump.zarr"))
    return _as_text({name: data for name in LOGS if (data := files.read(name)) is not None}, files.where)


def _as_text(logs: dict[str, bytes], where: str) -> dict[str, str]:
    texts = {}
    for name, data in logs.items():
        try:
            texts[name] = data.decode()
        except UnicodeDecodeError:
            raise DumpError(f"{where}: {name} is damaged, it is no text; put back a good copy") from None
    return texts


def worst_k(success: npt.NDArray[Any], k: int) -> npt.NDArray[np.float64]:
    """Mean success of the k tasks with the least (Table 2's worst-k before it is averaged over seeds).

    The trainer logs it and the toolkit's tables are made of it, so that it lives where both can reach.

    Args:
        success: (..., K), each (...) taken by itself: its own k worst.
        k: how many; of all, where there are fewer.

    Returns:
        (...).
    """
    return np.asarray(np.sort(success, axis=-1)[..., :k].mean(axis=-1))

"""A client of a dask.distributed cluster, for work that is spread over machines."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toppo.common.errors import ToppoError, bad_option


def is_cluster(scheduler: str) -> bool:
    """Whether a `scheduler` option names a dask cluster: the address of its scheduler, or its scheduler file."""
    return "://" in scheduler or scheduler.endswith(".json")


def distributed(scheduler: str) -> Any:
    """The module dask.distributed.

    Raises:
        UsageError: dask.distributed is not installed.
    """
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise bad_option("scheduler", scheduler, "needs dask.distributed; pip install 'toppo[dask]'") from None


@contextmanager
def dask_client(scheduler: str) -> Iterator[Any]:
    """A client of a running dask scheduler, closed at the end.

    Args:
        scheduler: address of the scheduler ("tcp://host:8786") or scheduler file ("cluster.json").

    Raises:
        UsageError: dask.distributed is not installed.
        ToppoError: the scheduler file does not exist, or no scheduler answers.
    """
    module = distributed(scheduler)
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    if "scheduler_file" in where and not Path(scheduler).is_file():
        raise ToppoError(
            f"`scheduler={scheduler}`: no such scheduler file; give tcp://host:port, or let a dask scheduler write it"
        )
    try:
        client = module.Client(**where, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ToppoError(f"`scheduler={scheduler}`: no dask scheduler answers there ({error}); start one") from None
    with client:
        yield client

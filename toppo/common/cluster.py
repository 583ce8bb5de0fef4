"""A client of a dask.distributed cluster, for work that is spread over machines."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toppo.common.errors import ToppoError, bad_option

PROTOCOLS = ("tcp", "tls", "ucx", "ws", "wss")
"""How the address of a dask scheduler may begin."""


def is_cluster(scheduler: str) -> bool:
    """Whether a `scheduler` option names a dask cluster: the address of its scheduler, or its scheduler file."""
    return "://" in scheduler or scheduler.endswith(".json")


def check_cluster(scheduler: str) -> None:
    """Refuse what is no address and no scheduler file of dask, before dask's own layers stumble over it.

    Raises:
        UsageError: naming the option `scheduler` and what it may be.
    """
    protocol, separator, place = scheduler.partition("://")
    if separator:
        if protocol not in PROTOCOLS or not place:
            allowed = ", ".join(f"{known}://" for known in PROTOCOLS)
            raise bad_option("scheduler", scheduler, f"no address of a dask scheduler; it begins with {allowed}")
        return
    try:
        with Path(scheduler).open(encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        problem = "no such scheduler file; give tcp://host:port, or start a dask scheduler with it"
        raise bad_option("scheduler", scheduler, problem) from None
    except OSError as error:
        raise bad_option("scheduler", scheduler, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not isinstance(known.get("address"), str):
        raise bad_option("scheduler", scheduler, "is not the scheduler file of a dask scheduler: it has no address")
    if known["address"].partition("://")[0] not in PROTOCOLS:
        raise bad_option("scheduler", scheduler, f"its address {known['address']!r} is none of a dask scheduler")


def _require_certificates(scheduler: str) -> None:
    """Refuse an encrypted address without certificates, which dask answers with a traceback after twenty seconds."""
    if not scheduler.startswith(("tls://", "wss://")):
        return
    security = distributed(scheduler).Security()
    if security.get_connection_args("client").get("ssl_context") is None:
        raise bad_option(
            "scheduler", scheduler, "needs certificates; name them in dask's configuration (distributed.comm.tls)"
        )


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
        UsageError: see `check_cluster`; or dask.distributed is not installed, or a certificate is missing.
        ToppoError: no scheduler answers.
    """
    check_cluster(scheduler)
    module = distributed(scheduler)
    _require_certificates(scheduler)
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    try:
        client = module.Client(**where, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ToppoError(f"`scheduler={scheduler}`: no dask scheduler answers there ({error}); start one") from None
    with client:
        yield client

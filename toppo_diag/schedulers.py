"""Where slabs become Grams: in this process, in threads, in processes, or on a dask.distributed cluster.

Every place runs the same function on the same whole slab on one BLAS thread, so the numbers are the same to the bit.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from toppo_diag.errors import DiagnosticError, UsageError

T = TypeVar("T")

ATTEMPTS = 4
"""Times a piece of work is tried when the process it runs in dies."""


def map_on(
    scheduler: str,
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    done: Callable[[int, int], object] | None = None,
) -> list[T]:
    """function(*a) for every a of `arguments`, in order, on a scheduler.

    A worker that dies takes nothing with it: what it had not finished is done again elsewhere.

    Args:
        scheduler: "serial", "threads[:N]", "processes[:N]", the address of a dask scheduler ("tcp://host:8786"), or
            its scheduler file ("cluster.json"). N is by default the number of cores.
        function: picklable, for any but serial and threads.
        arguments: of each call.
        done: called with (calls finished, calls in all).

    Raises:
        UsageError: no such scheduler, or dask is not installed.
        DiagnosticError: the scheduler does not answer, or workers keep dying.
    """
    results: dict[int, T] = {}

    def finished(index: int, result: T) -> None:
        results[index] = result
        if done is not None:
            done(len(results), len(arguments))

    if scheduler == "serial":
        for index, a in enumerate(arguments):
            finished(index, function(*a))
        return [results[i] for i in range(len(arguments))]
    for _ in range(ATTEMPTS):
        with _executor(scheduler) as pool:
            waiting: dict[Future[T], int] = {}
            try:
                for i, a in enumerate(arguments):
                    if i not in results:
                        waiting[pool.submit(function, *a)] = i
                for future in as_completed(waiting):
                    finished(waiting[future], future.result())
                return [results[i] for i in range(len(arguments))]
            except BrokenProcessPool:
                continue
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    raise DiagnosticError(
        f"--scheduler {scheduler}: its workers died {ATTEMPTS} times, perhaps for want of memory; give fewer, or serial"
    )


class ProcessPool(ProcessPoolExecutor):
    """Clean processes (forked children of a process with threads can hang) that leave Ctrl-C to their parent: they
    finish the piece that they are at, whole, and get no other.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=get_context("spawn"))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor.submit`, which starts the processes: they inherit what signals are blocked here."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_scheduler(scheduler: str) -> None:
    """Refuse what `map_on` would not know, before any work.

    Raises:
        UsageError: naming what there is.
    """
    kind = scheduler.partition(":")[0]
    if kind not in ("serial", "threads", "processes") and "://" not in scheduler and not scheduler.endswith(".json"):
        raise UsageError(
            f"--scheduler {scheduler}: give serial, threads:N, processes:N, tcp://host:port or a scheduler file (.json)"
        )


@contextmanager
def _executor(scheduler: str) -> Iterator[Executor]:
    check_scheduler(scheduler)
    kind, _, number = scheduler.partition(":")
    if kind in ("threads", "processes"):
        workers = _workers(scheduler, number)
        if kind == "threads":
            with ThreadPoolExecutor(workers) as threads:
                yield threads
        else:
            with ProcessPool(workers) as processes:
                yield processes
    else:
        yield from _dask(scheduler)


def _workers(scheduler: str, number: str) -> int:
    if not number:
        return os.cpu_count() or 1
    if not number.isdigit() or int(number) < 1:
        raise UsageError(f"--scheduler {scheduler}: the number of workers is 1 or more")
    return int(number)


def _dask(scheduler: str) -> Iterator[Executor]:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise UsageError(
            f"--scheduler {scheduler}: needs dask.distributed; pip install 'toppo[dask]', or give processes:N"
        ) from None
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    if "scheduler_file" in where and not Path(scheduler).is_file():
        raise DiagnosticError(f"--scheduler {scheduler}: no such scheduler file; start a dask scheduler with it")
    try:
        client = distributed.Client(**where, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise DiagnosticError(
            f"--scheduler {scheduler}: no dask scheduler answers there ({error}); start one, or give serial"
        ) from None
    with client:
        # retries: a piece of work whose worker died is done again elsewhere
        yield client.get_executor(retries=ATTEMPTS)

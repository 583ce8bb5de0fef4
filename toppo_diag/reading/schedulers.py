"""Computes Grams from slabs in this process, in threads, in processes, or on a dask.distributed cluster.

A slab is the (K, P) matrix of per-task gradients of one minibatch. Each place runs the same function on the whole slab
with one BLAS thread, so the numbers are equal to the bit.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from toppo.common.cluster import dask_client
from toppo_diag.errors import DiagnosticError
from toppo_diag.request import check_scheduler

T = TypeVar("T")

ATTEMPTS = 4
"""Number of times that a piece of work is tried when its process dies."""
PATIENCE = 300
"""Seconds without a finished call, after which a cluster that has no workers is given up."""


def map_on(
    scheduler: str,
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    done: Callable[[int, int], object] | None = None,
) -> list[T]:
    """The results of function(*a) for every a of `arguments`, in order, computed on a scheduler.

    When a worker dies, another worker does its unfinished work again.

    Args:
        scheduler: "serial", "threads[:N]", "processes[:N]", the address of a dask scheduler ("tcp://host:8786"), or
            its scheduler file ("cluster.json"). N is by default the number of cores.
        function: the function to call; picklable, except on serial and threads.
        arguments: the arguments of each call.
        done: called with (calls finished, calls in all).

    Raises:
        UsageError: no such scheduler, or dask is not installed.
        DiagnosticError: the scheduler does not answer or has no workers, or workers keep dying.
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
        with _executor(scheduler) as (pool, workers):
            waiting: dict[Future[T], int] = {}
            try:
                for i, a in enumerate(arguments):
                    if i not in results:
                        waiting[pool.submit(function, *a)] = i
                for future in _completed(waiting, workers):
                    finished(waiting[future], future.result())
                return [results[i] for i in range(len(arguments))]
            except BrokenProcessPool:
                continue
            except _NoWorkersError:
                _give_up(pool, waiting)
                raise DiagnosticError(
                    f"`scheduler={scheduler}`: nothing was done for {PATIENCE} s, and it has no workers; "
                    "start some, or give serial"
                ) from None
            except BaseException:
                _give_up(pool, waiting)
                raise
    raise DiagnosticError(
        f"`scheduler={scheduler}`: its workers died {ATTEMPTS} times, perhaps for lack of memory; "
        "give fewer workers, or serial"
    )


class ProcessPool(ProcessPoolExecutor):
    """A pool of fresh processes that leave Ctrl-C to their parent. Forked processes could hang because of threads.

    After Ctrl-C each process finishes its present work, and gets no more.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=get_context("spawn"))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The future of one call. This also starts the processes, which inherit the signals that are blocked here."""
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give_up(pool: Executor, waiting: Iterable[Future[Any]]) -> None:
    """Start no more work. dask's executor cannot be told so by `shutdown`."""
    for future in waiting:
        future.cancel()
    pool.shutdown(wait=False)


class _NoWorkersError(Exception):
    """A cluster has no workers, and nothing was done for `PATIENCE` seconds."""


def _completed(waiting: Iterable[Future[T]], workers: Callable[[], int]) -> Iterator[Future[T]]:
    """Futures, each when it is done.

    Raises:
        _NoWorkersError: none was done for `PATIENCE` seconds, and there are no workers.
    """
    left = set(waiting)
    while left:
        before = len(left)
        try:
            for future in as_completed(left, timeout=PATIENCE):
                left.discard(future)
                yield future
        except TimeoutError:
            if len(left) == before and not workers():
                raise _NoWorkersError from None


@contextmanager
def _executor(scheduler: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Where work is done, and how many workers there are at the moment."""
    workers = check_scheduler(scheduler)
    kind = scheduler.partition(":")[0]
    if kind in ("threads", "processes"):
        if kind == "threads":
            with ThreadPoolExecutor(workers) as threads:
                yield threads, lambda: workers
        else:
            with ProcessPool(workers) as processes:
                yield processes, lambda: workers
    else:
        with dask_client(scheduler) as client:
            # retries: when a worker dies, another worker does its work again
            yield client.get_executor(retries=ATTEMPTS), lambda: len(client.scheduler_info()["workers"])

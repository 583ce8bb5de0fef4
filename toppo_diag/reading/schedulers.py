"""Where slabs become Grams: in this process, in threads, in processes, or on a dask.distributed cluster.

Every place runs the same function on the same whole slab on one BLAS thread, so the numbers are equal to the bit.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
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
"""Times a piece of work is tried when the process it runs in dies."""


def map_on(
    scheduler: str,
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    done: Callable[[int, int], object] | None = None,
) -> list[T]:
    """function(*a) for every a of `arguments`, in order, on a scheduler.

    When a worker dies, its unfinished work is done again elsewhere.

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
        f"`scheduler={scheduler}`: its workers died {ATTEMPTS} times, perhaps for lack of memory; give fewer, or serial"
    )


class ProcessPool(ProcessPoolExecutor):
    """Fresh processes (forked children of a process with threads can hang) that leave Ctrl-C to their parent.

    After Ctrl-C each process finishes the work it is doing, and gets no more.
    """

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=get_context("spawn"))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor.submit`. It starts the processes, which inherit the signals that are blocked here."""
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _executor(scheduler: str) -> Iterator[Executor]:
    workers = check_scheduler(scheduler)
    kind = scheduler.partition(":")[0]
    if kind in ("threads", "processes"):
        if kind == "threads":
            with ThreadPoolExecutor(workers) as threads:
                yield threads
        else:
            with ProcessPool(workers) as processes:
                yield processes
    else:
        with dask_client(scheduler) as client:
            # retries: work whose worker died is done again elsewhere
            yield client.get_executor(retries=ATTEMPTS)

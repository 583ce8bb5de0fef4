"""One thread that runs jobs in order. Its first failure stops the caller."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Background:
    """Runs jobs one after the other on a thread of its own.

    After a job fails, the later jobs are skipped, and every call from outside raises that failure.

    Args:
        depth: how many jobs may wait. `submit` blocks while that many wait.
        explain: turns what a job raised into the exception for the caller.
    """

    def __init__(self, depth: int, explain: Callable[[BaseException], Exception]) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(depth)
        self._explain = explain
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="toppo-dump-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a job. Blocks while the queue is full."""
        self.check()
        self._jobs.put(job)

    def check(self) -> None:
        """Raise the failure of an earlier job, if there was one."""
        if self._failure is not None:
            raise self._explain(self._failure) from self._failure

    def flush(self) -> None:
        """Wait until every job handed over is done, then `check`."""
        self._jobs.join()
        self.check()

    def stop(self) -> None:
        """End the thread once every job handed over is done. Raises nothing."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._failure is None:
                    job()
            except BaseException as failure:  # any kind of failure: `check` raises it on the caller's thread
                self._failure = failure
            finally:
                del job
                self._jobs.task_done()
        self._jobs.task_done()

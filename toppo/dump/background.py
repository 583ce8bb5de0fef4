"""One thread that runs jobs in order. Its first failure stops the caller."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Background:
    """Runs jobs one after the other on a thread of its own.

    After a job fails, the later jobs are skipped, and every call from outside raises that failure. No call waits for a
    thread that has ended.

    Args:
        depth: how many jobs may wait. `submit` blocks while that many wait.
        explain: turns what a job raised into the exception for the caller.
        settle: ends what jobs put off, and is called between jobs. Its argument is how urgent that is: "now", or "idle"
            while no job waits, or "busy". It returns the seconds after which it wants to be called again; None if
            nothing is put off.
    """

    def __init__(
        self, depth: int, explain: Callable[[BaseException], Exception], settle: Callable[[str], float | None]
    ) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(depth)
        self._explain, self._settle = explain, settle
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="toppo-dump-writer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs. It does not after `stop`, and it does not exist in a forked process."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hand over a job. Blocks while the queue is full."""
        self.check()
        if not self.alive:  # nobody would ever take the job
            raise self._explain(RuntimeError("its thread has ended"))
        self._jobs.put(job)

    def check(self) -> None:
        """Raise the failure of an earlier job, if there was one."""
        if self._failure is not None:
            raise self._explain(self._failure) from self._failure

    def flush(self) -> None:
        """Wait until every job handed over is done and nothing is put off, then `check`."""
        self.submit(self._settle_now)
        self._jobs.join()
        self.check()

    def run(self, job: Job) -> None:
        """Run a job on the caller's thread after all jobs handed over. Its failure counts as that of any other job."""
        self.flush()
        try:
            job()
        except Exception as failure:
            self._failure = failure
        self.check()

    def stop(self) -> None:
        """End the thread once every job handed over is done and nothing is put off. Raises nothing."""
        if self.alive:
            self._jobs.put(self._settle_now)
            self._jobs.put(None)
            self._thread.join()

    def _settle_now(self) -> None:
        self._settle("now")

    def _run(self) -> None:
        wait: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=wait)
            except queue.Empty:
                wait = self._attempt(None)
                continue
            if job is None:
                break
            wait = self._attempt(job)
            del job
            self._jobs.task_done()
        self._jobs.task_done()

    def _attempt(self, job: Job | None) -> float | None:
        """Run a job unless one has failed, and settle what is due. Returns the seconds until more will be due."""
        if self._failure is not None:
            return None
        try:
            if job is not None:
                job()
            return self._settle("idle" if self._jobs.empty() else "busy")
        except BaseException as failure:  # any kind of failure: `check` raises it on the caller's thread
            with contextlib.suppress(Exception):  # what was written before may still be saved
                self._settle("now")
            self._failure = failure
            return None

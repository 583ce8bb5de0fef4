"""The runs of a sweep, each in a process of its own that trains as `toppo resume` does: several at a time on this
machine, or on a dask.distributed cluster whose machines see the same files.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toppo.common.errors import ToppoError, UsageError
from toppo.dump import DumpError
from toppo.training.config import from_dict
from toppo.training.errors import Interrupted, WorkerDied
from toppo.training.run.directory import RunDirectory
from toppo.training.run.signals import noted_signals
from toppo.training.sweep.plan import PlannedRun, State, state

ATTEMPTS = 3
"""Times a run is tried whose process, or one of whose workers, dies; each goes on from the last checkpoint."""
GRACE = 120.0
"""Seconds a run has to stop when it is asked to, before it is killed; either way its checkpoint stands."""
DIED = 75
"""Exit code by which a run's process says that one of its workers died."""
LOG = "sweep.log"
"""What a run of a sweep would have shown on a terminal: a file of its directory."""

_CHILD = "from toppo.training.sweep.jobs import child; child()"


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        status: "finished", "resumed" (finished now, begun before), "skipped" (finished before), "failed", "stopped",
            or "not started".
        note: why it failed, or what else there is to say; one line.
        env_steps: environment steps trained.
        mean_success: of the last evaluation; None without one.
        seconds: wall time spent on it now.
    """

    run: str
    status: str
    note: str
    env_steps: int
    mean_success: float | None
    seconds: float


def usable_cores() -> int:
    """Cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(cores: int) -> dict[str, str]:
    """Environment variables that hold a run's updates to so many threads; its environment processes are in its
    configuration.
    """
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))


# --- one run, from the side of whoever started it


def perform(run: PlannedRun, root: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Bring one run to its end, from wherever it is.

    Args:
        run: of a sweep.
        root: the directory that holds dumps/.
        environment: variables of its process, `threads` among them.
        stopped: asked several times a second whether to stop; then the run writes no more and keeps its checkpoint.
    """
    start = time.monotonic()

    def outcome(status: str, note: str = "") -> Outcome:
        steps, success = _reached(RunDirectory(root / run.path))
        return Outcome(str(run.path), status, note, steps, success, time.monotonic() - start)

    try:
        before, died = state(run, root), ""
        for attempt in range(1, ATTEMPTS + 1):
            if stopped():
                return outcome("not started" if before is State.NEW and attempt == 1 else "stopped")
            code, said = _train(run, root, environment, stopped)
            if code == 0:
                return outcome("finished" if before is State.NEW else "resumed", died and f"attempt {attempt}: {died}")
            if stopped():
                return outcome("stopped")
            if code != DIED and code >= 0:
                return outcome("failed", said or f"exit code {code}; see {run.path / LOG}")
            died = said or f"its process was ended by {signal.Signals(-code).name}"
        return outcome("failed", f"{died}; tried {ATTEMPTS} times")
    except (ToppoError, DumpError, OSError) as error:
        return outcome("failed", str(error))


def skipped(run: PlannedRun) -> Outcome:
    """The outcome of a run that was finished before."""
    steps, success = _reached(RunDirectory(run.path))
    return Outcome(str(run.path), "skipped", "", steps, success, 0.0)


def _reached(directory: RunDirectory) -> tuple[int, float | None]:
    """Environment steps of a run, and the mean success of its last evaluation."""
    try:
        progress, evaluations = directory.read(directory.progress), directory.read(directory.evaluation)
    except ToppoError:  # damaged logs: the run's own failure says so
        return 0, None
    return progress[-1]["env_steps"] if progress else 0, evaluations[-1]["mean_success"] if evaluations else None


def _train(run: PlannedRun, root: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> tuple[int, str]:
    """Exit code of a process that trains the run, and the line it left (empty if it was killed).

    The process holds the other end of a pipe from here: when this process dies, so does it at once, and whoever takes
    up the run next finds it free.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps({"name": run.name, "config": run.config.to_dict()})],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # until the child has its log
        start_new_session=True,  # a terminal's Ctrl-C is for the sweep to pass on, once
    )
    with process:
        deadline = None
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if deadline is None and stopped():
                    process.terminate()
                    deadline = time.monotonic() + GRACE
                elif deadline is not None and time.monotonic() > deadline:
                    process.kill()
        assert process.stdout is not None
        killed = process.returncode < 0  # its orphans may hold the pipe open for a while
        lines = [] if killed else process.stdout.read().decode().splitlines()
    return process.returncode, lines[-1] if lines else ""


# --- one run, in its own process


def child() -> None:
    """Train the run named on the command line, created first if it is new; the last line printed is why it failed."""
    job = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from rich.console import Console

    from toppo.training.run.start import open_run, require_training, train_to_end

    try:
        require_training()
        path = PlannedRun(job["name"], "", from_dict(job["config"])).path
        directory = RunDirectory(path) if path.exists() else RunDirectory.create(path.name, from_dict(job["config"]))
        with (directory.path / LOG).open("a") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        train_to_end(*open_run(path, None), Console(stderr=True))
        code = 0
    except Interrupted as error:
        print(error)
        code = error.exit_code
    except WorkerDied as error:
        print(error)
        code = DIED
    except (ToppoError, DumpError, OSError) as error:
        print(error)
        code = 1
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}; see {path / LOG}".replace("\n", " "))
        code = 1
    sys.exit(code)


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever written: it returns when the parent is gone
        pass
    os.kill(os.getpid(), signal.SIGKILL)


# --- all of them


def run_all(
    runs: Sequence[PlannedRun],
    jobs: int,
    scheduler: str | None,
    done: Callable[[Outcome], object],
    tick: Callable[[], object],
) -> int | None:
    """Perform runs: `jobs` at a time here, or as many at a time as a dask cluster has threads.

    Args:
        runs: that are not finished.
        jobs: processes on this machine.
        scheduler: address or scheduler file of dask.distributed, in place of `jobs`.
        done: told of every run as it ends.
        tick: called about once a second.

    Returns:
        The signal that stopped it; None if it went to the end.

    Raises:
        UsageError: dask is not installed.
        ToppoError: the scheduler does not answer.
    """
    if not runs:
        return None
    root = Path.cwd()
    with noted_signals() as received:
        place = _here(jobs, received) if scheduler is None else _cluster(scheduler)
        with place as (pool, function, arguments, stop):
            waiting = {pool.submit(function, run, root, *arguments): run for run in runs}
            told = False
            while waiting:
                ended, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in ended:
                    run = waiting.pop(future)
                    error = future.exception()
                    done(future.result() if error is None else _lost(run, root, error))
                if received and not told:
                    stop()
                    told = True
                tick()
    return received[0] if received else None


def _lost(run: PlannedRun, root: Path, error: BaseException) -> Outcome:
    """What came of a run whose place on the cluster was lost for good."""
    steps, success = _reached(RunDirectory(root / run.path))
    note = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(str(run.path), "failed", note, steps, success, 0.0)


Place = tuple[Executor, Callable[..., Outcome], tuple[Any, ...], Callable[[], object]]
"""Where runs go: an executor, a function of (run, root, *arguments) and those arguments, and what stops them all."""


@contextmanager
def _here(jobs: int, received: list[int]) -> Iterator[Place]:
    with ThreadPoolExecutor(jobs) as pool:
        # What the user has set in the shell wins.
        yield pool, perform, (threads(cores_of_a_job(jobs)) | os.environ, lambda: bool(received)), lambda: None


def cores_of_a_job(jobs: int) -> int:
    """Cores that one of so many jobs on this machine may use."""
    return max(1, usable_cores() // jobs)


@contextmanager
def _cluster(scheduler: str) -> Iterator[Place]:
    distributed = _distributed(scheduler)
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    if "scheduler_file" in where and not Path(scheduler).is_file():
        raise ToppoError(
            f"--scheduler {scheduler}: no such scheduler file; give tcp://host:port, or start dask with it"
        )
    try:
        client = distributed.Client(**where, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ToppoError(f"--scheduler {scheduler}: no dask scheduler answers there ({error}); start one") from None
    with client:
        flag = distributed.Event(f"toppo-sweep-{uuid.uuid4()}", client=client)
        with client.get_executor(pure=False) as pool:
            yield pool, perform_on_cluster, (flag.name,), flag.set


def _distributed(scheduler: str) -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise UsageError(
            f"--scheduler {scheduler}: needs dask.distributed; pip install 'toppo[dask]', or give --jobs"
        ) from None


def perform_on_cluster(run: PlannedRun, root: Path, flag: str) -> Outcome:
    """`perform` on a dask worker, which may use its machine's cores divided by its threads."""
    distributed = importlib.import_module("distributed")
    worker = distributed.get_worker()
    event = distributed.Event(flag, client=distributed.get_client())
    last = [0.0, False]

    def stopped() -> bool:
        if not last[1] and time.monotonic() > last[0] + 2:
            last[:] = time.monotonic(), event.is_set()
        return bool(last[1])

    if not root.is_dir():
        raise ToppoError(f"{root} is not on {worker.address}: a sweep needs a file system that all its machines share")
    share = max(1, usable_cores() // worker.state.nthreads)
    # The other way round than here: a worker under a nanny is given one thread, whatever its machine has.
    return perform(run, root, os.environ | threads(share), stopped)

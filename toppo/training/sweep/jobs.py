"""The runs of a sweep. Each run trains in a process of its own, as with `toppo resume`.

Several processes run at a time on this machine, or on a dask.distributed cluster whose machines see the same files.
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

from toppo.common.cluster import dask_client, distributed
from toppo.common.errors import ToppoError
from toppo.common.names import RUNS
from toppo.training.config import from_dict
from toppo.training.errors import Interrupted, WorkerDied
from toppo.training.run.directory import Run
from toppo.training.run.signals import noted_signals
from toppo.training.sweep.plan import PlannedRun, State, state

ATTEMPTS = 3
"""Number of tries of a run whose process or worker dies. Each try goes on from the last checkpoint."""
GRACE = 120.0
"""Seconds that a run may take to stop. Then it is killed. Its checkpoint is intact either way."""
DIED = 75
"""Exit code of a run's process when one of its workers died."""
LOG = "sweep.log"
"""File in a run's directory for the lines that `toppo train` shows on a terminal."""

_CHILD = "from toppo.training.sweep.jobs import child; child()"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run of a sweep.

    Attributes:
        run: directory of the run.
        status: "finished"; "resumed" (begun before, finished now); "skipped" (finished before); "failed"; "stopped";
            or "not started".
        note: one line that says why the run failed, or another remark.
        env_steps: environment steps trained.
        mean_success: mean success of the last evaluation; None without one.
        seconds: wall time spent on the run in this sweep.
    """

    run: str
    status: str
    note: str
    env_steps: int
    mean_success: float | None
    seconds: float


def usable_cores() -> int:
    """Cores that this process may use. On a cluster these can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(cores: int) -> dict[str, str]:
    """Environment variables that limit the threads of a run's updates.

    The configuration sets the number of environment processes.
    """
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))


# --- one run, seen from the process that starts it


def perform(run: PlannedRun, root: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Outcome:
    """Train one run to its end, from the start or from its last checkpoint.

    Args:
        run: a run of a sweep.
        root: the directory that holds dumps/.
        environment: environment variables of its process, including the variables of `threads`.
        stopped: called several times per second, and says whether to stop. A stopped run keeps its last checkpoint.

    Returns:
        The outcome. Errors of the run are in its note. None of them is raised.
    """
    start = time.monotonic()

    def outcome(status: str, note: str = "") -> Outcome:
        steps, success = _reached(Run(root / run.path))
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
            died = said or _end(code, run)
        return outcome("failed", f"{died}; tried {ATTEMPTS} times")
    except (ToppoError, OSError) as error:
        return outcome("failed", str(error))


def _end(code: int, run: PlannedRun) -> str:
    """How a process ended that may be tried again: by a signal, or with an exit code that says so."""
    if code >= 0:
        return f"exit code {code}; see {run.path / LOG}"
    known = {member.value: member.name for member in signal.Signals}
    return f"its process was ended by {known.get(-code, f'signal {-code}')}"


def skipped(run: PlannedRun) -> Outcome:
    """The outcome of a run that was finished before this sweep."""
    steps, success = _reached(Run(run.path))
    return Outcome(str(run.path), "skipped", "", steps, success, 0.0)


def _reached(run: Run) -> tuple[int, float | None]:
    """Environment steps of a run, and the mean success of its last evaluation."""
    try:
        return run.env_steps, run.mean_success
    except ToppoError:  # a damaged log, which the training of the run reports
        return 0, None


def _train(run: PlannedRun, root: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> tuple[int, str]:
    """Exit code of a process that trains the run, and the last line it printed (empty if it was killed).

    The training process reads a pipe from this process. When this process dies, the pipe closes, and the training
    process ends at once. So the run is free for the next sweep.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps({"name": run.name, "config": run.config.to_dict()})],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # until the child has opened its log
        # Only the sweep handles Ctrl-C in a terminal. It stops the run once.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
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
        killed = process.returncode < 0  # its orphaned workers may hold the pipe open for a while
        lines = [] if killed else process.stdout.read().decode().splitlines()
    return process.returncode, lines[-1] if lines else ""


# --- one run, in its own process


def child() -> None:
    """Train the run that the command line names. A new run is made first. The last line printed says why it failed."""
    job = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from rich.console import Console

    from toppo.training.run.start import require_training, resume

    path = RUNS / job["name"]
    try:
        require_training()
        run = Run(path) if path.exists() else Run.create(job["name"], from_dict(job["config"]))
        with (path / LOG).open("a") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        resume(run, progress=Console(stderr=True))
        code = 0
    except Interrupted as error:
        print(error)
        code = error.exit_code
    except WorkerDied as error:
        print(error)
        code = DIED
    except (ToppoError, OSError) as error:
        print(error)
        code = 1
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}; see {path / LOG}".replace("\n", " "))
        code = 1
    sys.exit(code)


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever written, so this returns when the parent is gone
        pass
    os._exit(1)


# --- all runs of a sweep


def run_all(
    runs: Sequence[PlannedRun],
    jobs: int,
    scheduler: str | None,
    done: Callable[[Outcome], object],
    tick: Callable[[], object],
) -> int | None:
    """Train runs: `jobs` at a time on this machine, or as many at a time as a dask cluster has threads.

    Args:
        runs: the runs that are not finished.
        jobs: processes on this machine.
        scheduler: address or scheduler file of dask.distributed, in place of `jobs`.
        done: called with the outcome of every run when the run ends.
        tick: called about once per second.

    Returns:
        The signal that stopped the sweep; None if the sweep went to its end.

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
    """The outcome of a run whose place on the cluster was lost."""
    steps, success = _reached(Run(root / run.path))
    note = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(str(run.path), "failed", note, steps, success, 0.0)


Place = tuple[Executor, Callable[..., Outcome], tuple[Any, ...], Callable[[], object]]
"""Where runs train: an executor, a function of (run, root, *arguments), its arguments, and a function to stop them."""


@contextmanager
def _here(jobs: int, received: list[int]) -> Iterator[Place]:
    with ThreadPoolExecutor(jobs) as pool:
        # A number of threads that is set in the shell wins over `threads`.
        yield pool, perform, (threads(cores_of_a_job(jobs)) | os.environ, lambda: bool(received)), lambda: None


def cores_of_a_job(jobs: int) -> int:
    """Cores for each of this many jobs on this machine."""
    return max(1, usable_cores() // jobs)


@contextmanager
def _cluster(scheduler: str) -> Iterator[Place]:
    with dask_client(scheduler) as client:
        flag = distributed(scheduler).Event(f"toppo-sweep-{uuid.uuid4()}", client=client)
        with client.get_executor(pure=False) as pool:
            yield pool, perform_on_cluster, (flag.name,), flag.set


def perform_on_cluster(run: PlannedRun, root: Path, flag: str) -> Outcome:
    """`perform` on a dask worker. The run may use the cores of the machine divided by the threads of the worker."""
    dask = importlib.import_module("distributed")
    worker = dask.get_worker()
    event = dask.Event(flag, client=dask.get_client())
    last = [0.0, False]

    def stopped() -> bool:
        if not last[1] and time.monotonic() > last[0] + 2:
            last[:] = time.monotonic(), event.is_set()
        return bool(last[1])

    if not root.is_dir():
        raise ToppoError(f"{root} is not on {worker.address}: all machines of a sweep must share a file system")
    share = max(1, usable_cores() // worker.state.nthreads)
    # On a cluster `threads` wins over the environment, because a dask nanny sets the variables to 1 for its workers.
    return perform(run, root, os.environ | threads(share), stopped)

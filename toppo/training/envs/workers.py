"""The official Meta-World package in worker processes. Each worker steps a few environments and acts for itself.

The policy travels to the workers once per rollout or evaluation. They write the results to shared memory, so no step
waits for another process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from toppo.common.allocator import keep_freed_memory
from toppo.common.errors import ToppoError
from toppo.training.envs.interface import Arrived, Evaluation, Policy, Progress, Rollout, unheeded
from toppo.training.envs.metaworld import not_compared, task_specs, versions
from toppo.training.envs.player import Player
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.envs.units import LANE_GOALS, LANES, Agenda, Assignment, shares, take_unit, units
from toppo.training.errors import WorkerDied

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that the trainer handles and its workers ignore."""


class MetaWorldBackend:
    """A `Backend` on the official package.

    Args:
        benchmark: MT10, MT25, MT50 or task names separated by commas.
        reward: "v1" or "v2".
        seed: seed of goals, environments and exploration.
        workers: number of processes, at most one per unit.
        copies: environments per task.
        episodes_per_env: episodes that each environment plays in a rollout.
        eval_episodes: goals per task in an evaluation.
        collected: tasks to play in rollouts; all by default.
        accelerated: whether to use the faster classes, where they were compared with the installed version.
    """

    obs_dim, action_dim, horizon = OBS_DIM, ACTION_DIM, HORIZON

    def __init__(
        self,
        benchmark: str,
        *,
        reward: str,
        seed: int,
        workers: int,
        copies: int,
        episodes_per_env: int,
        eval_episodes: int,
        collected: Collection[str] | None = None,
        accelerated: bool = True,
    ) -> None:
        specs = task_specs(benchmark, seed)
        self.tasks = tuple(spec.name for spec in specs)
        unknown = not_compared()
        accelerated = accelerated and not unknown
        self.versions = versions(accelerated)
        self.notices = (
            f"{unknown} is not tested with the accelerated environments; using the official ones. They compile a model "
            "for every copy, so one copy per task is fastest (`envs_per_task=1`)",
        ) * bool(unknown)
        self._eval_episodes = eval_episodes
        played = [spec for spec in specs if collected is None or spec.name in collected]
        collect, evaluation = units(played, copies, LANES), units(specs, eval_episodes, LANES * LANE_GOALS)
        n_workers = min(workers, max(len(collect), len(evaluation)))
        agendas = (Agenda(every, shares(every, n_workers)) for every in (collect, evaluation))
        self._assignment = Assignment(len(specs), copies, episodes_per_env, reward, seed, accelerated, *agendas)
        context = multiprocessing.get_context("spawn")
        memory = {
            name: context.RawArray("b", int(np.dtype(t).itemsize * np.prod(shape)))
            for name, (shape, t) in self._assignment.shapes.items()
        }
        self._arrays = self._assignment.views(memory)
        self._lock = context.Lock()  # kept alive, because workers open the lock by its name
        self._pool: list[_Worker] = []
        try:
            for i in range(n_workers):
                self._pool.append(_Worker(context, i, self.tasks, memory, self._lock))
            for worker in self._pool:
                worker.send(self._assignment)
        except BaseException:  # no more processes or files: those that began must not outlive this
            self.close()
            raise

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        self.start(policy, collect)
        return self.finish(progress, arrived)

    def start(self, policy: Policy, collect: int) -> None:
        """Begin a rollout. `finish` waits for its end.

        Until then the caller may write the rows of tasks that are not in `collected`.
        """
        self._send(self._assignment.collect, policy, collect)

    def finish(self, progress: Progress, arrived: Arrived) -> Rollout:
        """The rollout that `start` began."""
        each = self._assignment.episodes_per_env

        def played(index: int) -> None:
            unit = self._assignment.collect.units[index]
            arrived(unit.spec.index, slice(unit.members.start * each, unit.members.stop * each))

        self._wait(progress, played)
        return self.arrays

    @property
    def arrays(self) -> Rollout:
        return Rollout(**{field.name: self._arrays[field.name] for field in fields(Rollout)})

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        self._send(self._assignment.evaluation, policy, None)
        self._wait(progress, lambda _: None)
        goals = slice(self._eval_episodes)
        return Evaluation(self._arrays["goal_success"][:, goals].copy(), self._arrays["goal_return"][:, goals].copy())

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process numbers of the workers."""
        return tuple(worker.process.pid for worker in self._pool)

    def close(self) -> None:
        """End the workers at once."""
        for worker in self._pool:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self._pool = []

    def _send(self, agenda: Agenda, policy: Policy, collect: int | None) -> None:
        """Let the workers play the rollout of a collect, or an evaluation if `collect` is None."""
        self._arrays["left"][:] = [(part.start, part.stop) for part in agenda.parts]
        for worker in self._pool:
            worker.status[0] = 0
            worker.send((policy, collect))

    def _wait(self, progress: Progress, played: Callable[[int], None]) -> None:
        """Wait until all workers are done. `played` is called with the index of every finished unit."""
        pending: dict[Any, _Worker] = {worker.connection: worker for worker in self._pool}
        sentinels: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in self._pool}
        while pending:
            for ready in wait([*pending, *sentinels], timeout=0.1):
                progress(self.steps)  # called first, because a signal that ended the workers came to this process too
                if ready in pending:
                    unit = pending[ready].receive()
                    if unit is None:
                        del pending[ready]
                    else:
                        played(unit)
                elif ready in sentinels:
                    raise sentinels[ready].death()
            progress(self.steps)

    @property
    def steps(self) -> int:
        """Environment steps done in the current call."""
        return sum(int(worker.status[0]) for worker in self._pool)


class _Worker:
    """The trainer's end of one worker process."""

    def __init__(
        self,
        context: Any,
        number: int,
        tasks: tuple[str, ...],
        memory: dict[str, Any],
        lock: Any,
    ) -> None:
        self._tasks = tasks
        status = context.RawArray("q", 2)  # environment steps done in this call, index of the task being stepped
        self.status = np.frombuffer(status, np.int64)
        self.status[1] = -1
        self.connection, other_end = context.Pipe()
        # The assignment is sent later: with a long argument, `start` would wait for a process that died.
        arguments = (other_end, number, memory, status, lock, os.getpid())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with _children_ignore_signals(), _children_skip_the_script():
            self.process.start()
        other_end.close()

    def send(self, message: Any) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(message))  # by value: the pickler of torch would share descriptors
        except (BrokenPipeError, ConnectionResetError):
            raise self.death() from None

    def receive(self) -> int | None:
        """The index of a unit that has been played; None when the worker is done."""
        try:
            message: int | str | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self.death() from None
        if isinstance(message, str):
            task = int(self.status[1])
            raise ToppoError(f"{f'task {self._tasks[task]}' if task >= 0 else 'a worker process'}: {message}")
        return message

    def death(self) -> WorkerDied:
        self.process.join(1)
        task = int(self.status[1])
        doing = "starting" if task < 0 else f"stepping {self._tasks[task]}"
        return WorkerDied(
            f"a worker process died (exit code {self.process.exitcode}) while {doing}; "
            "if the machine ran out of memory, use fewer `workers`"
        )


@contextmanager
def _children_ignore_signals() -> Iterator[None]:
    """A context. Processes that start within it ignore the signals `STOPPING` from their first instruction.

    They inherit the blocked signals. Windows cannot block signals. There `_serve` ignores Ctrl-C as soon as it runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # before the signals are blocked, because its start would unblock them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _children_skip_the_script() -> Iterator[None]:
    """Processes that start within this context do not run the user's script.

    A spawned process imports the main module of its parent. Workers need nothing from it, and a script that calls
    `toppo.train` outside of `if __name__ == "__main__"` would start a training in every worker.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(connection: Connection, number: int, memory: dict[str, Any], status: Any, lock: Any, parent: int) -> None:
    """A worker process: receive the assignment, then answer commands until the trainer goes away."""
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()  # of MuJoCo models, 21 MB each
    try:
        _answer(connection, number, memory, status, lock, parent)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return
    except Exception as error:  # for lack of memory, say: one line to the trainer, not a traceback on its terminal
        with suppress(OSError):
            connection.send(f"{type(error).__name__}: {error}")


def _answer(connection: Connection, number: int, memory: dict[str, Any], status: Any, lock: Any, parent: int) -> None:
    assignment: Assignment = pickle.loads(connection.recv_bytes())
    player = Player(assignment, assignment.views(memory), np.frombuffer(status, np.int64), parent)
    with threadpool_limits(1):  # acting is 3 to 10 times slower with two BLAS threads per worker
        while True:
            policy, collect = pickle.loads(connection.recv_bytes())
            for answer in player.answers(policy, collect, lambda: take_unit(number, player.arrays["left"], lock)):
                connection.send(answer)

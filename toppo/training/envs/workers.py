"""The official Meta-World package in worker processes that each step a few environments and act for themselves.

The policy travels to the workers once a collect; they write the rollout straight into shared memory, so no step waits
for another process. Collects and evaluations are cut into units: a few environments of one task, stepped in lockstep
with one policy call a step. Every worker has units of its own, as many as have its share of the measured cost; who has
done with them takes over others'. What a unit's environments do depends on their seeds and the policy only, so neither
the number of workers nor who plays what leaves a trace.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from toppo.common.allocator import keep_freed_memory
from toppo.common.errors import ToppoError
from toppo.training.envs.costs import step_cost
from toppo.training.envs.interface import Arrived, Evaluation, Policy, Progress, Rollout, unheeded
from toppo.training.envs.metaworld import (
    ACTION_DIM,
    HORIZON,
    N_GOALS,
    OBS_DIM,
    Episode,
    TaskSpec,
    environment_seed,
    not_compared,
    task_specs,
    versions,
)
from toppo.training.errors import WorkerDied
from toppo.training.gaussian import log_prob_of_noise

ROLLOUT, EVALUATION, NOISE = 0, 1, 2  # first part of the key of each random stream

LANES = 5
"""Environments of a unit: rows of a policy call cost half as much as alone."""
LANE_GOALS = 2
"""Goals that each of them plays in an evaluation: a unit of either kind is about a second of work."""


@dataclass(frozen=True)
class Unit:
    """Environments of one task: which copies in a collect, which goals in an evaluation."""

    spec: TaskSpec
    members: range


@dataclass(frozen=True)
class Agenda:
    """All units of a collect or of an evaluation, and which of them are each worker's own: consecutive ones, so that a
    worker has few tasks' models to hold.
    """

    units: tuple[Unit, ...]
    parts: tuple[range, ...]


@dataclass(frozen=True)
class Layout:
    """What all workers agree on."""

    n_tasks: int
    copies: int
    episodes_per_env: int
    reward: str
    seed: int
    accelerated: bool
    collect: Agenda
    evaluation: Agenda

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every shared array."""
        k, e = self.n_tasks, self.copies * self.episodes_per_env
        return {
            "obs": ((k, e, HORIZON + 1, OBS_DIM), "f4"),
            "actions": ((k, e, HORIZON, ACTION_DIM), "f4"),
            "log_prob": ((k, e, HORIZON), "f4"),
            "rewards": ((k, e, HORIZON), "f8"),
            "success": ((k, e), "?"),
            "goal_success": ((k, N_GOALS), "?"),
            "goal_return": ((k, N_GOALS), "f8"),
            "left": (
                (len(self.collect.parts), 2),
                "i8",
            ),  # of each part: the first unit, and one past the last
        }

    def views(self, memory: dict[str, Any]) -> dict[str, np.ndarray]:
        """The shared arrays as numpy."""
        return {name: np.frombuffer(memory[name], dtype).reshape(shape) for name, (shape, dtype) in self.shapes.items()}


class MetaWorldBackend:
    """`Backend` on the official package.

    Args:
        benchmark: MT10, MT25, MT50 or a comma list of task names.
        reward: "v1" or "v2".
        seed: of goals, environments and exploration.
        workers: processes, at most one a unit.
        copies: environments a task.
        episodes_per_env: episodes each of them plays a collect.
        eval_episodes: goals a task evaluated.
        collected: tasks to play in collects; all by default.
        accelerated: whether on the faster classes, where this version of the package is one they were compared with.
    """

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
            f"{unknown}: the accelerated environments are not known to match it, taking its own, which compile a model "
            "for every copy: --envs-per-task 1 is quickest",
        ) * bool(unknown)
        self._eval_episodes = eval_episodes
        played = [spec for spec in specs if collected is None or spec.name in collected]
        collect, evaluation = units(played, copies, LANES), units(specs, eval_episodes, LANES * LANE_GOALS)
        n_workers = min(workers, max(len(collect), len(evaluation)))
        agendas = (Agenda(every, shares(every, n_workers)) for every in (collect, evaluation))
        self._layout = Layout(len(specs), copies, episodes_per_env, reward, seed, accelerated, *agendas)
        context = multiprocessing.get_context("spawn")
        memory = {
            name: context.RawArray("b", int(np.dtype(t).itemsize * np.prod(shape)))
            for name, (shape, t) in self._layout.shapes.items()
        }
        self._arrays = self._layout.views(memory)
        self._lock = context.Lock()  # kept: workers open it by name
        self._pool = [_Worker(context, i, self.tasks, memory, self._lock) for i in range(n_workers)]
        for worker in self._pool:
            worker.send(self._layout)

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        """See `Backend.rollout`."""
        self.start(policy, collect)
        return self.finish(progress, arrived)

    def start(self, policy: Policy, collect: int) -> None:
        """Begin a rollout that `finish` waits for; until then the rows of tasks not `collected` are the caller's."""
        self._send(self._layout.collect, policy, collect)

    def finish(self, progress: Progress, arrived: Arrived) -> Rollout:
        """The rollout begun by `start`."""
        each = self._layout.episodes_per_env

        def played(index: int) -> None:
            unit = self._layout.collect.units[index]
            arrived(unit.spec.index, slice(unit.members.start * each, unit.members.stop * each))

        self._wait(progress, played)
        return self.arrays

    @property
    def arrays(self) -> Rollout:
        """See `Backend.arrays`: the shared memory itself."""
        return Rollout(**{field.name: self._arrays[field.name] for field in fields(Rollout)})

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """See `Backend.evaluate`."""
        self._send(self._layout.evaluation, policy, None)
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
        """Have the workers play a collect, or with None an evaluation."""
        self._arrays["left"][:] = [(part.start, part.stop) for part in agenda.parts]
        for worker in self._pool:
            worker.status[0] = 0
            worker.send((policy, collect))

    def _wait(self, progress: Progress, played: Callable[[int], None]) -> None:
        """Until all workers have done; `played` is told the index of every unit."""
        pending = {worker.connection: worker for worker in self._pool}
        sentinels = {worker.process.sentinel: worker for worker in self._pool}
        while pending:
            for ready in wait([*pending, *sentinels], timeout=0.1):
                progress(self.steps)  # a signal that ends the workers too has come here first
                if ready in pending and isinstance(ready, Connection):
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
        """Environment steps done in the running call."""
        return sum(int(worker.status[0]) for worker in self._pool)


def exploration_noise(seed: int, collect: int, task: int, copy: int, n_episodes: int) -> np.ndarray:
    """Standard normal (n_episodes, T, A) float32 of one copy of a task in a collect."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(NOISE, collect, task, copy)))
    return generator.standard_normal((n_episodes, HORIZON, ACTION_DIM), dtype=np.float32)


def log_prob_of_drawn(noise: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log-density (m, T) float32 of the actions mean + std noise, for noise (m, T, A) and std (m, A)."""
    log_prob: np.ndarray = log_prob_of_noise(torch.from_numpy(noise), torch.from_numpy(std).log()).numpy()
    return log_prob


def units(specs: Sequence[TaskSpec], n_members: int, size: int) -> tuple[Unit, ...]:
    """Units of at most `size` members that together have the first `n_members` (copies, or goals) of every task."""
    starts = range(0, n_members, size)
    return tuple(Unit(spec, range(i, min(i + size, n_members))) for spec in specs for i in starts)


def shares(every: Sequence[Unit], n_workers: int) -> tuple[range, ...]:
    """Consecutive units for each worker, of about the same cost."""
    costs = np.array([len(unit.members) * step_cost(unit.spec.name) for unit in every])
    ends = np.cumsum(costs)
    middles = (ends - costs / 2) / ends[-1:]
    cuts = [*np.searchsorted(middles, np.arange(n_workers) / n_workers).tolist(), len(every)]
    return tuple(range(start, stop) for start, stop in pairwise(cuts))


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
        self.connection, theirs = context.Pipe()
        # The layout, which is long, comes by the connection: a long argument has `start` wait for a process that died.
        arguments = (theirs, number, memory, status, lock, os.getpid())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        # Ctrl-C and SIGTERM are the trainer's to handle: a worker inherits the mask, deaf from its first import on.
        # (The resource tracker's start would lift the mask, so it comes before.)
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def send(self, message: Any) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(message))  # by value: torch's own pickler would share descriptors
        except (BrokenPipeError, ConnectionResetError):
            raise self.death() from None

    def receive(self) -> int | None:
        """The index of a unit that has been played, or None at the end of a command."""
        try:
            message: int | str | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self.death() from None
        if isinstance(message, str):
            raise ToppoError(f"task {self._tasks[int(self.status[1])]}: {message}")
        return message

    def death(self) -> WorkerDied:
        self.process.join(1)
        task = int(self.status[1])
        doing = "starting" if task < 0 else f"stepping {self._tasks[task]}"
        return WorkerDied(
            f"a worker process died (exit code {self.process.exitcode}) while {doing}; "
            "if the machine ran out of memory, use fewer --workers"
        )


def _serve(connection: Connection, number: int, memory: dict[str, Any], status: Any, lock: Any, parent: int) -> None:
    """A worker's life: learn the layout, then answer commands until the trainer goes away."""
    keep_freed_memory()  # of models: 21 MB each
    try:
        layout: Layout = pickle.loads(connection.recv_bytes())
        player = _Player(layout, layout.views(memory), np.frombuffer(status, np.int64), parent)
        with threadpool_limits(1):  # two BLAS threads a worker cost 3x to 10x while acting
            while True:
                policy, collect = pickle.loads(connection.recv_bytes())
                for answer in player.answers(policy, collect, lambda: _take(number, player.arrays["left"], lock)):
                    connection.send(answer)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return


def _take(number: int, left: np.ndarray, lock: Any) -> int | None:
    """Index of the next of this worker's own units, or else of the last one of whoever has most left."""
    with lock:
        if left[number, 0] < left[number, 1]:
            left[number, 0] += 1
            return int(left[number, 0]) - 1
        busiest = int((left[:, 1] - left[:, 0]).argmax())
        if left[busiest, 0] >= left[busiest, 1]:
            return None
        left[busiest, 1] -= 1
        return int(left[busiest, 1])


class _Player:
    """Plays units: their environments in lockstep, with one policy call a step."""

    def __init__(self, layout: Layout, arrays: dict[str, np.ndarray], status: np.ndarray, parent: int) -> None:
        self._layout, self.arrays, self._status, self._parent = layout, arrays, status, parent

    @contextmanager
    def _built(self, spec: TaskSpec, keys: Sequence[tuple[int, ...]]) -> Iterator[list[Episode]]:
        """An environment for each key, fresh, until the end of the block."""
        self._status[1] = spec.index
        layout = self._layout
        envs = [Episode(spec, layout.reward, environment_seed(layout.seed, *key), layout.accelerated) for key in keys]
        yield envs
        for env in envs:
            env.close()

    def _exit_if_orphaned(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit

    def answers(
        self, policy: Policy, collect: int | None, take: Callable[[], int | None]
    ) -> Iterator[int | str | None]:
        """Play units of a collect, or with None of an evaluation, as long as there are any to take. Gives the index of
        each once it has been played, and in the end None, or what went wrong.
        """
        try:
            while (unit := take()) is not None:
                if collect is None:
                    self.evaluate(self._layout.evaluation.units[unit], policy)
                else:
                    self.rollout(self._layout.collect.units[unit], policy, collect)
                yield unit
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
        else:
            yield None

    def rollout(self, unit: Unit, policy: Policy, collect: int) -> None:
        """Every episode of these copies of a task."""
        layout, status, k = self._layout, self._status, unit.spec.index
        shared = Rollout(**{field.name: self.arrays[field.name][k] for field in fields(Rollout)})
        n_episodes, copies, m = layout.episodes_per_env, np.array(unit.members), len(unit.members)
        noise = np.stack([exploration_noise(layout.seed, collect, k, copy, n_episodes) for copy in unit.members])
        tasks, obs, rewards = np.full(m, k), np.empty((m, OBS_DIM)), np.empty(m)
        with self._built(unit.spec, [(ROLLOUT, collect, k, copy) for copy in unit.members]) as envs:
            for episode in range(n_episodes):
                self._exit_if_orphaned()
                columns = copies * n_episodes + episode
                for i, env in enumerate(envs):
                    obs[i] = env.reset()
                shared.obs[columns, 0] = obs
                shared.success[columns] = False
                for t in range(HORIZON):
                    mean, std = policy.act(obs, tasks)
                    actions = mean + std * noise[:, episode, t]
                    clipped = actions.clip(-1, 1)
                    for i, env in enumerate(envs):
                        obs[i], rewards[i], success, _ = env.step(clipped[i])
                        if success:
                            shared.success[columns[i]] = True
                    status[0] += m
                    shared.obs[columns, t + 1] = obs
                    shared.actions[columns, t] = actions
                    shared.rewards[columns, t] = rewards
                shared.log_prob[columns] = log_prob_of_drawn(noise[:, episode], std)

    def evaluate(self, unit: Unit, policy: Policy) -> None:
        """Every goal of a unit once with the mean action, shared out among its lanes; an episode ends at its first
        success.
        """
        k, status = unit.spec.index, self._status
        goals = [list(unit.members[lane::LANES]) for lane in range(min(LANES, len(unit.members)))]
        success, returns = self.arrays["goal_success"][k], self.arrays["goal_return"][k]
        obs = np.empty((len(goals), OBS_DIM))

        def start(lane: int) -> None:
            self._exit_if_orphaned()
            obs[lane] = envs[lane].reset(goals[lane][0])
            success[goals[lane][0]], returns[goals[lane][0]] = False, 0.0

        with self._built(unit.spec, [(EVALUATION, k, own[0]) for own in goals]) as envs:
            active = list(range(len(envs)))
            for lane in active:
                start(lane)
            while active:
                mean, _ = policy.act(obs[active], np.full(len(active), k))
                for action, lane in zip(mean.clip(-1, 1), list(active), strict=True):
                    obs[lane], reward, reached, over = envs[lane].step(action)
                    goal = goals[lane][0]
                    returns[goal] += reward
                    success[goal] |= reached
                    if reached or over:
                        del goals[lane][0]
                        if goals[lane]:
                            start(lane)
                        else:
                            active.remove(lane)
                status[0] += len(mean)

"""The official Meta-World package in worker processes that each hold several environments and act for themselves.

The policy travels to the workers once a collect; they write observations, actions and rewards straight into shared
memory, so no step waits for another process. Exploration noise has a stream of its own for every (collect, task,
copy). A collect's environments are shared out beforehand, by measured cost; an evaluation, whose episodes end at
success, in small units to whoever is free.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from toppo.envs.costs import step_cost
from toppo.envs.interface import Evaluation, Policy, Progress
from toppo.envs.metaworld import (
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
from toppo.errors import ToppoError, WorkerDied
from toppo.rollout import Rollout

ROLLOUT, EVALUATION, NOISE = 0, 1, 2  # first part of the key of each random stream

LANES = 5
"""Environments of an evaluation unit, stepped in lockstep: rows of a policy call cost half as much as alone."""
LANE_GOALS = 5
"""Goals that each of them plays: a unit is a second or two of work, so that no worker waits long for the last."""


@dataclass(frozen=True)
class Slot:
    """One environment of a worker's collects: a copy of a task."""

    spec: TaskSpec
    copy: int


@dataclass(frozen=True)
class Unit:
    """A share of an evaluation: goals of one task, on freshly built environments of its own."""

    spec: TaskSpec
    goals: range


@dataclass(frozen=True)
class Layout:
    """What all workers agree on."""

    n_tasks: int
    copies: int
    episodes_per_env: int
    reward: str
    seed: int
    accelerated: bool
    units: tuple[Unit, ...]

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every shared array."""
        k, e = self.n_tasks, self.copies * self.episodes_per_env
        return {
            "obs": ((k, e, HORIZON + 1, OBS_DIM), "f4"),
            "actions": ((k, e, HORIZON, ACTION_DIM), "f4"),
            "rewards": ((k, e, HORIZON), "f8"),
            "success": ((k, e), "?"),
            "goal_success": ((k, N_GOALS), "?"),
            "goal_return": ((k, N_GOALS), "f8"),
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
        workers: processes, at most one an environment.
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
        self.notices = (f"{unknown}: the accelerated environments are not known to match it, taking its own",) * bool(
            unknown
        )
        self._eval_episodes = eval_episodes
        units = evaluation_units(specs, eval_episodes)
        layout = Layout(len(specs), copies, episodes_per_env, reward, seed, accelerated, units)
        context = multiprocessing.get_context("spawn")
        memory = {
            name: context.RawArray("b", int(np.dtype(t).itemsize * np.prod(shape)))
            for name, (shape, t) in layout.shapes.items()
        }
        self._arrays = layout.views(memory)
        slots = [Slot(spec, copy) for spec in specs for copy in range(copies)]
        self._next_unit = context.Value("q", 0)
        self._pool: list[_Worker] = []
        for part in balance(slots, workers):
            played = [slot for slot in part if collected is None or slot.spec.name in collected]
            self._pool.append(_Worker(context, layout, self.tasks, played, memory, self._next_unit))

    def rollout(self, policy: Policy, collect: int, progress: Progress) -> Rollout:
        """See `Backend.rollout`. The arrays are the shared memory itself: valid until the next call."""
        self.start(policy, collect)
        return self.finish(progress)

    def start(self, policy: Policy, collect: int) -> None:
        """Begin a rollout that `finish` waits for; until then the rows of tasks not `collected` are the caller's."""
        self._send(("rollout", policy, collect))

    def finish(self, progress: Progress) -> Rollout:
        """The rollout begun by `start`."""
        self._wait(progress)
        return self.arrays

    @property
    def arrays(self) -> Rollout:
        """The shared memory that rollouts are written to."""
        return Rollout(*(self._arrays[name] for name in ("obs", "actions", "rewards", "success")))

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """See `Backend.evaluate`. The rows of a policy call are those of one unit, whatever the number of workers."""
        self._next_unit.value = 0
        self._send(("evaluate", policy, None))
        self._wait(progress)
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

    def _send(self, command: tuple[Any, ...]) -> None:
        for worker in self._pool:
            worker.send(command)

    def _wait(self, progress: Progress) -> None:
        pending = {worker.connection: worker for worker in self._pool}
        sentinels = {worker.process.sentinel: worker for worker in self._pool}
        while pending:
            for ready in wait([*pending, *sentinels], timeout=0.1):
                progress(self.steps)  # a signal that ends the workers too has come here first
                if ready in pending and isinstance(ready, Connection):
                    pending[ready].receive()
                    del pending[ready]
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


def balance(slots: Sequence[Slot], n_workers: int) -> list[list[Slot]]:
    """Slots shared out so that every worker has about the same time to spend: longest first, each to the least
    loaded.
    """
    parts: list[list[Slot]] = [[] for _ in range(min(n_workers, len(slots)))]
    loads = [0.0] * len(parts)
    for slot in sorted(slots, key=lambda s: -step_cost(s.spec.name)):
        least = loads.index(min(loads))
        parts[least].append(slot)
        loads[least] += step_cost(slot.spec.name)
    return parts


def evaluation_units(specs: Sequence[TaskSpec], n_goals: int) -> tuple[Unit, ...]:
    """The first goals of every task in units, the costliest first, so that the last to finish are cheap."""
    starts = range(0, n_goals, LANES * LANE_GOALS)
    units = (Unit(spec, range(i, min(i + starts.step, n_goals))) for spec in specs for i in starts)
    return tuple(sorted(units, key=lambda u: -len(u.goals) * step_cost(u.spec.name)))


class _Worker:
    """The trainer's end of one worker process."""

    def __init__(
        self,
        context: Any,
        layout: Layout,
        tasks: tuple[str, ...],
        slots: list[Slot],
        memory: dict[str, Any],
        next_unit: Any,
    ) -> None:
        self._tasks = tasks
        status = context.RawArray("q", 2)  # environment steps done in this call, index of the task being stepped
        self.status = np.frombuffer(status, np.int64)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, layout, slots, memory, status, next_unit, os.getpid()), daemon=True
        )
        # Ctrl-C and SIGTERM are the trainer's to handle: a worker inherits the mask, deaf from its first import on.
        # (The resource tracker's start would lift the mask, so it comes before.)
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def send(self, command: tuple[Any, ...]) -> None:
        self.status[0] = 0
        try:
            self.connection.send_bytes(pickle.dumps(command))  # by value: torch's own pickler would share descriptors
        except (BrokenPipeError, ConnectionResetError):
            raise self.death() from None

    def receive(self) -> None:
        try:
            failure = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self.death() from None
        if failure is not None:
            raise ToppoError(f"task {self._current()}: {failure}")

    def death(self) -> WorkerDied:
        self.process.join(1)
        return WorkerDied(
            f"a worker process died (exit code {self.process.exitcode}) while stepping {self._current()}; "
            "if the machine ran out of memory, use fewer --workers"
        )

    def _current(self) -> str:
        return self._tasks[int(self.status[1])]


def _serve(
    connection: Connection,
    layout: Layout,
    slots: list[Slot],
    memory: dict[str, Any],
    status: Any,
    next_unit: Any,
    parent: int,
) -> None:
    """A worker's life: answer commands until the trainer goes away."""
    arrays, progress = layout.views(memory), np.frombuffer(status, np.int64)
    crew = _Crew(layout, slots, arrays, progress, next_unit, parent)
    with threadpool_limits(1):  # two BLAS threads a worker cost 3x to 10x while acting
        while True:
            try:
                name, policy, collect = pickle.loads(connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                return
            failure = None
            try:
                crew.rollout(policy, collect) if name == "rollout" else crew.evaluate(policy)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            connection.send(failure)


class _Crew:
    """A worker's environments, stepped in lockstep with one policy call a step."""

    def __init__(
        self,
        layout: Layout,
        slots: list[Slot],
        arrays: dict[str, np.ndarray],
        status: np.ndarray,
        next_unit: Any,
        parent: int,
    ) -> None:
        self._layout, self._slots, self._arrays = layout, slots, arrays
        self._status, self._next_unit, self._parent = status, next_unit, parent

    def _build(self, spec: TaskSpec, *key: int) -> Episode:
        self._status[1] = spec.index
        seed = environment_seed(self._layout.seed, *key)
        return Episode(spec, self._layout.reward, seed, self._layout.accelerated)

    def _exit_if_orphaned(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit

    def rollout(self, policy: Policy, collect: int) -> None:
        """The worker's share of a collect."""
        layout, status = self._layout, self._status
        if not self._slots:
            return
        shared_obs, shared_actions, shared_rewards, shared_success = (
            self._arrays[name] for name in ("obs", "actions", "rewards", "success")
        )
        indices = [slot.spec.index for slot in self._slots]
        envs = [self._build(s.spec, ROLLOUT, collect, s.spec.index, s.copy) for s in self._slots]
        n_episodes = layout.episodes_per_env
        noise = np.stack(
            [exploration_noise(layout.seed, collect, s.spec.index, s.copy, n_episodes) for s in self._slots]
        )
        tasks, copies = np.array(indices), np.array([slot.copy for slot in self._slots])
        obs, rewards = np.empty((len(envs), OBS_DIM)), np.empty(len(envs))
        reached = np.empty(len(envs), bool)
        for episode in range(n_episodes):
            self._exit_if_orphaned()
            columns = copies * n_episodes + episode
            for i, env in enumerate(envs):
                status[1] = indices[i]
                obs[i] = env.reset()
            shared_obs[tasks, columns, 0] = obs
            reached[:] = False
            for t in range(HORIZON):
                mean, std = policy.act(obs, tasks)
                actions = mean + std * noise[:, episode, t]
                clipped = actions.clip(-1, 1)
                for i, env in enumerate(envs):
                    status[1] = indices[i]
                    obs[i], rewards[i], success, _ = env.step(clipped[i])
                    if success:
                        reached[i] = True
                status[0] += len(envs)
                shared_obs[tasks, columns, t + 1] = obs
                shared_actions[tasks, columns, t] = actions
                shared_rewards[tasks, columns, t] = rewards
            shared_success[tasks, columns] = reached

    def evaluate(self, policy: Policy) -> None:
        """Units of the evaluation until none is left."""
        while True:
            with self._next_unit.get_lock():
                number = self._next_unit.value
                self._next_unit.value += 1
            if number >= len(self._layout.units):
                return
            self._play(self._layout.units[number], policy)

    def _play(self, unit: Unit, policy: Policy) -> None:
        """Every goal of a unit once with the mean action, shared out among its lanes; an episode ends at its first
        success.
        """
        task, status = unit.spec.index, self._status
        goals = [list(unit.goals[lane::LANES]) for lane in range(min(LANES, len(unit.goals)))]
        envs = [self._build(unit.spec, EVALUATION, task, played[0]) for played in goals]
        success, returns = self._arrays["goal_success"][task], self._arrays["goal_return"][task]
        obs = np.empty((len(envs), OBS_DIM))

        def start(lane: int) -> None:
            self._exit_if_orphaned()
            obs[lane] = envs[lane].reset(goals[lane][0])
            success[goals[lane][0]], returns[goals[lane][0]] = False, 0.0

        active = list(range(len(envs)))
        for lane in active:
            start(lane)
        while active:
            mean, _ = policy.act(obs[active], np.full(len(active), task))
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

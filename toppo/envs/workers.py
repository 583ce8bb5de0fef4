"""The official Meta-World package in worker processes that each hold several environments and act for themselves.

The policy travels to the workers once a collect; they write observations, actions and rewards straight into shared
memory, so no step waits
for another process. Exploration noise has a stream of its own for every (collect, task, copy).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Sequence
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
    task_specs,
    versions,
)
from toppo.errors import ToppoError
from toppo.rollout import Rollout

ROLLOUT, EVALUATION, NOISE = 0, 1, 2  # first part of the key of each random stream


@dataclass(frozen=True)
class Slot:
    """One environment of a worker: a copy of a task."""

    spec: TaskSpec
    copy: int


@dataclass(frozen=True)
class Layout:
    """What all workers agree on."""

    n_tasks: int
    copies: int
    episodes_per_env: int
    reward: str
    seed: int

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
    ) -> None:
        specs = task_specs(benchmark, seed)
        self.tasks = tuple(spec.name for spec in specs)
        self.versions = versions()
        self._eval_episodes = eval_episodes
        layout = Layout(len(specs), copies, episodes_per_env, reward, seed)
        context = multiprocessing.get_context("spawn")
        memory = {
            name: context.RawArray("b", int(np.dtype(t).itemsize * np.prod(shape)))
            for name, (shape, t) in layout.shapes.items()
        }
        self._arrays = layout.views(memory)
        slots = [Slot(spec, copy) for spec in specs for copy in range(copies)]
        self._pool: list[_Worker] = []
        for part in balance(slots, workers):
            self._pool.append(_Worker(context, layout, part, memory))

    def rollout(self, policy: Policy, collect: int, progress: Progress) -> Rollout:
        """See `Backend.rollout`. The arrays are the shared memory itself: valid until the next call."""
        self._call(("rollout", policy, collect), progress)
        return Rollout(*(self._arrays[name] for name in ("obs", "actions", "rewards", "success")))

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """See `Backend.evaluate`."""
        self._call(("evaluate", policy, self._eval_episodes), progress)
        goals = slice(self._eval_episodes)
        return Evaluation(self._arrays["goal_success"][:, goals].copy(), self._arrays["goal_return"][:, goals].copy())

    def close(self) -> None:
        """End the workers at once."""
        for worker in self._pool:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self._pool = []

    def _call(self, command: tuple[Any, ...], progress: Progress) -> None:
        for worker in self._pool:
            worker.send(command)
        pending = {worker.connection: worker for worker in self._pool}
        sentinels = {worker.process.sentinel: worker for worker in self._pool}
        while pending:
            for ready in wait([*pending, *sentinels], timeout=0.1):
                progress(self._steps())  # a signal that ends the workers too has come here first
                if ready in pending and isinstance(ready, Connection):
                    pending[ready].receive()
                    del pending[ready]
                elif ready in sentinels:
                    raise sentinels[ready].death()
            progress(self._steps())

    def _steps(self) -> int:
        return sum(int(worker.status[0]) for worker in self._pool)


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


class _Worker:
    """The trainer's end of one worker process."""

    def __init__(self, context: Any, layout: Layout, slots: list[Slot], memory: dict[str, Any]) -> None:
        self._slots = slots
        status = context.RawArray("q", 2)  # environment steps done in this call, index of the slot being stepped
        self.status = np.frombuffer(status, np.int64)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, layout, slots, memory, status, os.getpid()), daemon=True
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

    def death(self) -> ToppoError:
        self.process.join(1)
        tasks = ", ".join(dict.fromkeys(slot.spec.name for slot in self._slots))
        return ToppoError(
            f"the worker process of {tasks} died (exit code {self.process.exitcode}) while stepping {self._current()}; "
            "if the machine ran out of memory, use fewer --workers"
        )

    def _current(self) -> str:
        return self._slots[int(self.status[1])].spec.name


def _serve(
    connection: Connection, layout: Layout, slots: list[Slot], memory: dict[str, Any], status: Any, parent: int
) -> None:
    """A worker's life: answer commands until the trainer goes away."""
    arrays, progress = layout.views(memory), np.frombuffer(status, np.int64)
    crew = _Crew(layout, slots, arrays, progress, parent)
    with threadpool_limits(1):
        _hold_torch_to_one_thread()
        while True:
            try:
                name, policy, argument = pickle.loads(connection.recv_bytes())
            except (EOFError, ConnectionResetError):
                return
            failure = None
            try:
                crew.rollout(policy, argument) if name == "rollout" else crew.evaluate(policy, argument)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            connection.send(failure)


def _hold_torch_to_one_thread() -> None:
    """Two BLAS threads a worker cost 3x to 10x while acting."""
    import torch

    torch.set_num_threads(1)


class _Crew:
    """A worker's environments, stepped in lockstep with one policy call a step."""

    def __init__(
        self, layout: Layout, slots: list[Slot], arrays: dict[str, np.ndarray], status: np.ndarray, parent: int
    ) -> None:
        self._layout, self._slots, self._arrays, self._status, self._parent = layout, slots, arrays, status, parent

    def _build(self, *key: int) -> list[Episode]:
        episodes = []
        for i, slot in enumerate(self._slots):
            self._status[1] = i
            seed = environment_seed(self._layout.seed, *key, slot.spec.index, slot.copy)
            episodes.append(Episode(slot.spec, self._layout.reward, seed))
        return episodes

    def _step(self, i: int, env: Episode, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        self._status[1] = i
        outcome = env.step(action)
        self._status[0] += 1
        return outcome

    def _exit_if_orphaned(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit

    def rollout(self, policy: Policy, collect: int) -> None:
        layout, arrays = self._layout, self._arrays
        envs = self._build(ROLLOUT, collect)
        n_episodes = layout.episodes_per_env
        noise = np.stack([self._noise(collect, slot, n_episodes) for slot in self._slots])
        tasks = np.array([slot.spec.index for slot in self._slots])
        obs = np.empty((len(envs), OBS_DIM))
        for episode in range(n_episodes):
            self._exit_if_orphaned()
            rows = [(slot.spec.index, slot.copy * n_episodes + episode) for slot in self._slots]
            for i, env in enumerate(envs):
                self._status[1] = i
                obs[i] = env.reset()
                arrays["obs"][rows[i]][0] = obs[i]
                arrays["success"][rows[i]] = False
            for t in range(HORIZON):
                mean, std = policy.act(obs, tasks)
                actions = mean + std * noise[:, episode, t]
                for i, env in enumerate(envs):
                    obs[i], reward, success, _ = self._step(i, env, actions[i])
                    row = rows[i]
                    arrays["obs"][row][t + 1] = obs[i]
                    arrays["actions"][row][t] = actions[i]
                    arrays["rewards"][row][t] = reward
                    arrays["success"][row] |= success

    def _noise(self, collect: int, slot: Slot, n_episodes: int) -> np.ndarray:
        key = (NOISE, collect, slot.spec.index, slot.copy)
        generator = np.random.default_rng(np.random.SeedSequence(self._layout.seed, spawn_key=key))
        return generator.standard_normal((n_episodes, HORIZON, ACTION_DIM), dtype=np.float32)

    def evaluate(self, policy: Policy, n_goals: int) -> None:
        """Every goal once with the mean action; a task's goals are shared out among its copies, and an episode ends
        at its first success.
        """
        envs = self._build(EVALUATION)
        success, returns = self._arrays["goal_success"], self._arrays["goal_return"]
        tasks = np.array([slot.spec.index for slot in self._slots])
        goal = [slot.copy for slot in self._slots]
        obs = np.empty((len(envs), OBS_DIM))
        active = [i for i in range(len(envs)) if goal[i] < n_goals]

        def start(i: int) -> None:
            self._exit_if_orphaned()
            self._status[1] = i
            obs[i] = envs[i].reset(goal[i])
            success[tasks[i], goal[i]], returns[tasks[i], goal[i]] = False, 0.0

        for i in active:
            start(i)
        while active:
            mean, _ = policy.act(obs[active], tasks[active])
            for action, i in zip(mean, list(active), strict=True):
                obs[i], reward, reached, over = self._step(i, envs[i], action)
                returns[tasks[i], goal[i]] += reward
                success[tasks[i], goal[i]] |= reached
                if reached or over:
                    goal[i] += self._layout.copies
                    if goal[i] < n_goals:
                        start(i)
                    else:
                        active.remove(i)

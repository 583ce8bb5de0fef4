"""What a worker process does with a unit (a few environments of one task): play episodes, write to shared arrays.

The outcome depends on the seeds and on the policy alone. The number of workers does not matter, nor which worker plays
a unit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import torch

from toppo.training.envs.interface import Policy, Rollout
from toppo.training.envs.metaworld import Episode, TaskSpec, environment_seed
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.envs.units import LANES, Assignment, Unit
from toppo.training.gaussian import log_prob_of_noise

ROLLOUT, EVALUATION, NOISE = 0, 1, 2
"""First part of the key of each random stream of the environments."""


def exploration_noise(seed: int, collect: int, task: int, copy: int, n_episodes: int) -> np.ndarray:
    """Standard normal noise (n_episodes, T, A) float32 for one copy of a task in one collect (rollout phase)."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(NOISE, collect, task, copy)))
    return generator.standard_normal((n_episodes, HORIZON, ACTION_DIM), dtype=np.float32)


def log_prob_of_drawn(noise: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log-density (m, T) float32 of the actions mean + std noise, for noise (m, T, A) and std (m, A)."""
    log_prob: np.ndarray = log_prob_of_noise(torch.from_numpy(noise), torch.from_numpy(std).log()).numpy()
    return log_prob


class Player:
    """Plays units. The environments of a unit run in lockstep, with one policy call per step.

    Args:
        assignment: the units, and how environments are built.
        arrays: the shared arrays, see `Assignment.shapes`.
        status: shared with the trainer: environment steps done in this call, and the index of the task being stepped.
        parent: process number of the trainer. The player ends its process when the trainer has ended.
    """

    def __init__(self, assignment: Assignment, arrays: dict[str, np.ndarray], status: np.ndarray, parent: int) -> None:
        self._assignment, self.arrays, self._status, self._parent = assignment, arrays, status, parent

    def answers(
        self, policy: Policy, collect: int | None, take: Callable[[], int | None]
    ) -> Iterator[int | str | None]:
        """Play units as long as there are any to take.

        Args:
            policy: the policy that plays them.
            collect: number of the collect; None for an evaluation.
            take: returns the index of the next unit, or None.

        Yields:
            The index of each unit once it is played. At the end None, or an error message.
        """
        try:
            while (unit := take()) is not None:
                if collect is None:
                    self.evaluate(self._assignment.evaluation.units[unit], policy)
                else:
                    self.rollout(self._assignment.collect.units[unit], policy, collect)
                yield unit
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
        else:
            yield None

    def rollout(self, unit: Unit, policy: Policy, collect: int) -> None:
        """Play every episode of the unit's copies of a task."""
        assignment, status, k = self._assignment, self._status, unit.spec.index
        shared = Rollout(**{field.name: self.arrays[field.name][k] for field in fields(Rollout)})
        n_episodes, copies, m = assignment.episodes_per_env, np.array(unit.members), len(unit.members)
        noise = np.stack([exploration_noise(assignment.seed, collect, k, copy, n_episodes) for copy in unit.members])
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
        """Play every goal of a unit once with the mean action. An episode ends at its first success.

        The goals are divided among the unit's environments.
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

    @contextmanager
    def _built(self, spec: TaskSpec, keys: Sequence[tuple[int, ...]]) -> Iterator[list[Episode]]:
        """A freshly built environment for each key, until the end of the block."""
        self._status[1] = spec.index
        assignment = self._assignment
        envs = [
            Episode(spec, assignment.reward, environment_seed(assignment.seed, *key), assignment.accelerated)
            for key in keys
        ]
        yield envs
        for env in envs:
            env.close()

    def _exit_if_orphaned(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit

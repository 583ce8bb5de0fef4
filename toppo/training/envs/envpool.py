"""EnvPool's Meta-World in C++: for quick training, never as the reference.

EnvPool has V2 rewards only and a MuJoCo of its own. It draws a new goal at every reset, while the benchmark has 50
goals per task. Some tasks of EnvPool differ from Meta-World (`ROUTED`). The official package plays these tasks, and
every evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from toppo.common.errors import ToppoError, bad_option
from toppo.training.envs.interface import Arrived, Evaluation, Policy, Progress, Rollout, unheeded
from toppo.training.envs.metaworld import environment_class, environment_seed, not_compared, task_names
from toppo.training.envs.player import ROLLOUT, exploration_noise, log_prob_of_drawn
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, N_GOALS, OBS_DIM
from toppo.training.envs.workers import MetaWorldBackend

VERSION = "1.2.5"

_DRIFT = "the goal drifts from the second reset on"
_PADS = "the gripper pads stay frozen where they were at the start, which shifts the reward"
_SETTLED = "the scene settles once, not twice, before an episode"
_CONTACTS = "contacts differ under EnvPool's MuJoCo, and the scripted expert fails"
ROUTED = {
    "hammer-v3": _DRIFT,
    "shelf-place-v3": _DRIFT,
    "button-press-topdown-wall-v3": "the reward is an older one",
    **dict.fromkeys(("pick-place-v3", "push-back-v3", "soccer-v3", "sweep-v3", "sweep-into-v3", "door-lock-v3"), _PADS),
    **dict.fromkeys(
        ("disassemble-v3", "box-close-v3", "door-unlock-v3", "peg-unplug-side-v3", "handle-press-v3", "handle-pull-v3"),
        _SETTLED,
    ),
    "dial-turn-v3": _CONTACTS,
    "peg-insert-side-v3": _CONTACTS,
}
"""Tasks of EnvPool 1.2.5 that differ from metaworld 3.1.1, and how they differ."""


def require_envpool() -> None:
    """Check that the known version of EnvPool is installed. Other versions behave differently.

    Raises:
        UsageError: this version is not installed. The message says what to install.
    """
    try:
        installed = version("envpool")
    except PackageNotFoundError:
        raise bad_option("backend", "envpool", "EnvPool is not installed; pip install 'toppo[envpool]'") from None
    if installed != VERSION:
        problem = f"EnvPool {installed} is not supported; pip install 'envpool=={VERSION}'"
        raise bad_option("backend", "envpool", problem)


class EnvPoolBackend:
    """A `Backend` that plays rollouts with EnvPool and evaluations with the official package.

    Args:
        benchmark: MT10, MT25, MT50 or task names separated by commas.
        seed: seed of environments and exploration.
        workers: number of processes of the official package, and of threads of EnvPool.
        copies: environments per task. EnvPool is fastest with 4 to 16.
        episodes_per_env: episodes that each environment plays in a rollout.
        eval_episodes: goals per task in an evaluation.
    """

    obs_dim, action_dim, horizon = OBS_DIM, ACTION_DIM, HORIZON

    def __init__(
        self, benchmark: str, *, seed: int, workers: int, copies: int, episodes_per_env: int, eval_episodes: int
    ) -> None:
        self.tasks = task_names(benchmark)
        routed = tuple(task for task in self.tasks if task in ROUTED)
        self._pools = [TaskPool(i, task) for i, task in enumerate(self.tasks) if task not in ROUTED]
        self._seed, self._threads, self._copies, self._episodes = seed, workers, copies, episodes_per_env
        self._official = MetaWorldBackend(
            benchmark,
            reward="v2",
            seed=seed,
            workers=workers,
            copies=copies,
            episodes_per_env=episodes_per_env,
            eval_episodes=eval_episodes,
            collected=routed,
        )
        self.versions: Mapping[str, str] = {**self._official.versions, "envpool": VERSION}
        goals = f"EnvPool draws a new goal at every reset, not one of the benchmark's {N_GOALS}"
        played = f"; these tasks differ in EnvPool, so the official package plays them: {', '.join(routed)}"
        self.notices = (*self._official.notices, goals + (played if routed else ""))

    @property
    def arrays(self) -> Rollout:
        return self._official.arrays

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        self._official.start(policy, collect)
        if self._pools:
            with threadpool_limits(1):
                self._play(policy, collect, progress, arrived)
        own = len(self._pools) * self._copies * self._episodes * HORIZON
        return self._official.finish(lambda steps: progress(own + steps), arrived)

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        return self._official.evaluate(policy, progress)

    def close(self) -> None:
        """End the workers of the official package."""
        self._official.close()

    def _play(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived) -> None:
        """Play the episodes of all pools in lockstep: send an action to every pool, then receive from every pool."""
        arrays, copies = self.arrays, range(self._copies)
        tasks = np.repeat([pool.index for pool in self._pools], self._copies)
        columns = np.tile(np.arange(self._copies) * self._episodes, len(self._pools))
        noise = np.stack(
            [
                exploration_noise(self._seed, collect, pool.index, c, self._episodes)
                for pool in self._pools
                for c in copies
            ]
        )
        for pool in self._pools:
            pool.build([environment_seed(self._seed, ROLLOUT, collect, pool.index, c) for c in copies], self._threads)
        obs = np.empty((len(tasks), OBS_DIM))
        rows = [slice(i * self._copies, (i + 1) * self._copies) for i in range(len(self._pools))]
        for episode in range(self._episodes):
            column = columns + episode
            for pool in self._pools:
                pool.start()
            for pool, own in zip(self._pools, rows, strict=True):
                obs[own] = pool.first()
            arrays.obs[tasks, column, 0] = obs
            arrays.success[tasks, column] = False
            for t in range(HORIZON):
                mean, std = policy.act(obs, tasks)
                actions = mean + std * noise[:, episode, t]
                if not np.isfinite(actions).all():
                    task = self.tasks[tasks[_first_not_finite(actions)]]
                    raise ToppoError(f"task {task}: the policy gave an action that is not a finite number")
                clipped = actions.clip(-1, 1)
                for pool, own in zip(self._pools, rows, strict=True):
                    pool.send(clipped[own])
                for pool, own in zip(self._pools, rows, strict=True):
                    obs[own], arrays.rewards[pool.index, column[own], t], success = pool.receive()
                    arrays.success[pool.index, column[own]] |= success
                arrays.obs[tasks, column, t + 1] = obs
                arrays.actions[tasks, column, t] = actions
                progress((episode * HORIZON + t + 1) * len(tasks) + self._official.steps)
            arrays.log_prob[tasks, column] = log_prob_of_drawn(noise[:, episode], std)
            for pool in self._pools:
                arrived(pool.index, slice(episode, None, self._episodes))


def _first_not_finite(actions: Float[np.ndarray, "m act"]) -> int:
    return int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])


class TaskPool:
    """All copies of one task. A pool waits for all its environments, so results come in the order of the copies."""

    def __init__(self, index: int, task: str) -> None:
        self.index, self._task = index, task
        env = environment_class(task, not not_compared())(reward_function_version="v2")
        env._partially_observable = False
        del env.sawyer_observation_space  # it was computed before there was a goal space
        self._space = env.sawyer_observation_space
        self._pool: Any = None

    def build(self, seeds: list[int], threads: int) -> None:
        """Make new environments, so that nothing of the previous rollout remains."""
        import envpool

        self._pool = envpool.make_gymnasium(
            envpool_name(self._task),
            num_envs=len(seeds),
            env_seed=[seed & 0x7FFFFFFF for seed in seeds],
            num_threads=min(threads, len(seeds)),
            partially_observable=False,
        )

    def start(self) -> None:
        """Begin an episode. Without this reset, EnvPool would give a reward for the first call after a truncation."""
        self._pool.async_reset()

    def first(self) -> np.ndarray:
        """First observations of the episode.

        Raises:
            ToppoError: a goal is outside the task's goal space.
        """
        obs: np.ndarray = self._pool.recv()[0]
        goals = obs[:, -3:]
        if (np.abs(goals - goals.clip(self._space.low[-3:], self._space.high[-3:])) > 1e-6).any():
            raise ToppoError(
                f"task {self._task}: EnvPool drew a goal outside the goal space; train with `backend=metaworld`"
            )
        return obs

    def send(self, actions: np.ndarray) -> None:
        """Begin a step."""
        self._pool.send(actions)

    def receive(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations (n, obs) clipped as Meta-World clips them, rewards (n,) and successes (n,)."""
        obs, rewards, _, _, info = self._pool.recv()
        return obs.clip(self._space.low, self._space.high), rewards, info["success"] > 0


def envpool_name(task: str) -> str:
    """EnvPool's name of a task, such as MetaWorld/DoorOpen-v3 for door-open-v3."""
    return "MetaWorld/" + "".join(part.capitalize() for part in task.removesuffix("-v3").split("-")) + "-v3"

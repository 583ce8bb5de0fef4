"""EnvPool's Meta-World in C++: quick training, never the reference.

Its tasks, V2 rewards only, run on a MuJoCo of their own and draw a new goal at every reset, where the benchmark has 50.
What it cannot serve faithfully (`ROUTED`) the official package plays in the same collect, and every evaluation is the
official one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from toppo.common.errors import ToppoError, UsageError
from toppo.training.envs.interface import Arrived, Evaluation, Policy, Progress, Rollout, unheeded
from toppo.training.envs.metaworld import (
    HORIZON,
    OBS_DIM,
    environment_class,
    environment_seed,
    not_compared,
    task_names,
)
from toppo.training.envs.workers import ROLLOUT, MetaWorldBackend, exploration_noise, log_prob_of_drawn

VERSION = "1.2.5"

_DRIFT = "the goal drifts from the second reset on"
_PADS = "gripper pads frozen where they were at the start shift the reward"
_SETTLED = "the scene settles once, not twice, before an episode"
_CONTACTS = "contacts differ under its MuJoCo, and the scripted expert fails"
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
"""Tasks of EnvPool 1.2.5 that differ from metaworld 3.1.1, and how."""


def require_envpool() -> None:
    """Refuse to start without EnvPool, or with another version: later ones behave differently.

    Raises:
        UsageError: saying what to install.
    """
    try:
        installed = version("envpool")
    except PackageNotFoundError:
        raise UsageError("--backend envpool needs EnvPool: pip install 'toppo[envpool]'") from None
    if installed != VERSION:
        raise UsageError(
            f"--backend envpool knows EnvPool {VERSION}, not {installed}: pip install 'envpool=={VERSION}'"
        )


class EnvPoolBackend:
    """`Backend` that collects with EnvPool and evaluates with the official package.

    Args:
        benchmark: MT10, MT25, MT50 or a comma list of task names.
        seed: of environments and exploration.
        workers: processes of the official package, and threads of EnvPool.
        copies: environments a task; EnvPool is quickest with 4 to 16.
        episodes_per_env: episodes each of them plays a collect.
        eval_episodes: goals a task evaluated.
    """

    def __init__(
        self, benchmark: str, *, seed: int, workers: int, copies: int, episodes_per_env: int, eval_episodes: int
    ) -> None:
        self.tasks = task_names(benchmark)
        routed = tuple(task for task in self.tasks if task in ROUTED)
        self._pools = [_Pool(i, task) for i, task in enumerate(self.tasks) if task not in ROUTED]
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
        goals = "EnvPool draws a new goal at every reset, not one of the benchmark's 50"
        played = f"; the official package plays {', '.join(routed)}, which EnvPool serves differently" if routed else ""
        self.notices = (*self._official.notices, goals + played)

    @property
    def arrays(self) -> Rollout:
        """See `Backend.arrays`."""
        return self._official.arrays

    def rollout(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived = unheeded) -> Rollout:
        """See `Backend.rollout`."""
        self._official.start(policy, collect)
        if self._pools:
            with threadpool_limits(1):
                self._play(policy, collect, progress, arrived)
        own = len(self._pools) * self._copies * self._episodes * HORIZON
        return self._official.finish(lambda steps: progress(own + steps), arrived)

    def evaluate(self, policy: Policy, progress: Progress) -> Evaluation:
        """See `Backend.evaluate`."""
        return self._official.evaluate(policy, progress)

    def close(self) -> None:
        """End the official package's workers."""
        self._official.close()

    def _play(self, policy: Policy, collect: int, progress: Progress, arrived: Arrived) -> None:
        """Every pool's episodes in lockstep: send to all, then receive from all."""
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
                    raise ToppoError(f"task {self.tasks[tasks[_first_not_finite(actions)]]}: an action is not a number")
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


class _Pool:
    """All copies of one task. Results come in the order of the copies: a pool waits for all of its environments."""

    def __init__(self, index: int, task: str) -> None:
        self.index, self._task = index, task
        env = environment_class(task, not not_compared())(reward_function_version="v2")
        env._partially_observable = False
        del env.sawyer_observation_space  # computed before there was a goal space
        self._space = env.sawyer_observation_space
        self._pool: Any = None

    def build(self, seeds: list[int], threads: int) -> None:
        """New environments, so that nothing of the collect before is left in them."""
        import envpool

        self._pool = envpool.make_gymnasium(
            envpool_name(self._task),
            num_envs=len(seeds),
            env_seed=[seed & 0x7FFFFFFF for seed in seeds],
            num_threads=min(threads, len(seeds)),
            partially_observable=False,
        )

    def start(self) -> None:
        """Begin an episode: left to itself, EnvPool rewards the first call after a truncation."""
        self._pool.async_reset()

    def first(self) -> np.ndarray:
        """First observations of the episode begun.

        Raises:
            ToppoError: a goal has left the task's goal space.
        """
        obs: np.ndarray = self._pool.recv()[0]
        goals = obs[:, -3:]
        if (np.abs(goals - goals.clip(self._space.low[-3:], self._space.high[-3:])) > 1e-6).any():
            raise ToppoError(
                f"task {self._task}: a goal of EnvPool's has left the goal space; give --backend metaworld"
            )
        return obs

    def send(self, actions: np.ndarray) -> None:
        """Begin a step."""
        self._pool.send(actions)

    def receive(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations (n, 39) clipped to their space, as Meta-World clips them, rewards and successes (n,)."""
        obs, rewards, _, _, info = self._pool.recv()
        return obs.clip(self._space.low, self._space.high), rewards, info["success"] > 0


def envpool_name(task: str) -> str:
    """EnvPool's name of a task: MetaWorld/DoorOpen-v3 of door-open-v3."""
    return "MetaWorld/" + "".join(part.capitalize() for part in task.removesuffix("-v3").split("-")) + "-v3"

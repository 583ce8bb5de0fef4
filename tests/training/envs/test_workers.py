"""The Meta-World backend against Meta-World itself: trajectories, goals, evaluation."""

from __future__ import annotations

import dataclasses
import threading
from multiprocessing import resource_tracker, spawn

import gymnasium
import metaworld
import numpy as np
import pytest
import torch

from tests.training.envs.policies import Dies, Expert, Fails, Still
from toppo.common.errors import ToppoError, UsageError
from toppo.training.envs.costs import step_cost
from toppo.training.envs.metaworld import ALL_V3_ENVIRONMENTS, TaskSpec, environment_seed, task_names, task_specs
from toppo.training.envs.player import ROLLOUT
from toppo.training.envs.sizes import ACTION_DIM, OBS_DIM
from toppo.training.envs.units import shares, take_unit, units
from toppo.training.envs.workers import MetaWorldBackend
from toppo.training.errors import WorkerDied
from toppo.training.learner.networks import Actor, NetworkShape
from toppo.training.learner.policy import ActorPolicy
from toppo.training.learner.rollout import Batch

TASKS = ("reach-v3", "drawer-close-v3", "window-close-v3")
HORIZON = 500


def quiet(_: int) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def backend():
    made = MetaWorldBackend(
        ",".join(TASKS), reward="v2", seed=3, workers=2, copies=2, episodes_per_env=2, eval_episodes=50
    )
    yield made
    made.close()


def official(name: str, seed: int, env_seed: int) -> gymnasium.Env:
    """Meta-World's own environment of one task, as `make_mt_envs` builds it, with goals of `seed` and a generator of
    its own.
    """
    env = metaworld.make_mt_envs(name, seed=seed)
    env.unwrapped.seed(env_seed)
    return env


def test_rollout_is_make_mt_envs_step_by_step(backend):
    assert backend.versions["metaworld_path"] == "accelerated"
    assert backend.notices == ()
    rollout = backend.rollout(Still(), 7, quiet)
    for k, name in enumerate(TASKS):
        for copy in range(2):
            env = official(name, 3, environment_seed(3, ROLLOUT, 7, k, copy))
            for episode in (2 * copy, 2 * copy + 1):
                obs, _ = env.reset()
                np.testing.assert_array_equal(rollout.obs[k, episode, 0], obs.astype(np.float32))
                reached = False
                for t in range(HORIZON):
                    obs, reward, terminated, truncated, info = env.step(np.clip(rollout.actions[k, episode, t], -1, 1))
                    np.testing.assert_array_equal(rollout.obs[k, episode, t + 1], obs.astype(np.float32))
                    assert rollout.rewards[k, episode, t] == reward
                    assert (terminated, truncated) == (False, t == HORIZON - 1)
                    reached |= bool(info["success"])
                assert rollout.success[k, episode] == reached


def test_named_benchmark_has_the_goals_of_make_mt_envs():
    specs = task_specs("MT10", 5)
    envs = metaworld.make_mt_envs("MT10", seed=5)
    for spec, env in zip(specs, envs.envs, strict=True):
        assert [goal.data for goal in spec.goals] == [task.data for task in env.get_wrapper_attr("tasks")]
    envs.close()


def test_rollout_depends_on_nothing_but_seed_collect_and_policy(backend):
    first = backend.rollout(Still(), 1, quiet)
    kept = {name: getattr(first, name).copy() for name in ("obs", "actions", "log_prob", "rewards", "success")}
    backend.rollout(Still(), 2, quiet)
    again = backend.rollout(Still(), 1, quiet)
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_log_prob_is_that_of_the_actions_under_the_policy():
    actor = Actor(NetworkShape(2, OBS_DIM, ACTION_DIM, (32, 32)), False, torch.Generator().manual_seed(0))
    actor.log_std.data = torch.tensor([[-1.0, 0.5, 0.0, 0.2], [0.3, -2.0, 0.1, 0.0]])
    backend = MetaWorldBackend(
        ",".join(TASKS[:2]), reward="v2", seed=3, workers=2, copies=3, episodes_per_env=2, eval_episodes=1
    )
    try:
        rollout = backend.rollout(ActorPolicy(actor), 1, quiet)
        mean = actor(torch.from_numpy(rollout.obs[:, :, :-1]).flatten(1, 2)).view(rollout.actions.shape)
        policy = torch.distributions.Normal(mean.double(), actor.log_std.double().exp()[:, None, None])
        expected = policy.log_prob(torch.from_numpy(rollout.actions).double()).sum(-1).detach().numpy()
        np.testing.assert_allclose(rollout.log_prob, expected, atol=2e-4)  # means in fp32, over a std of 0.14
    finally:
        backend.close()


def test_episodes_are_announced_once_and_stand_as_they_are(backend):
    """What is copied as it arrives is the rollout."""
    copy = Batch.empty(backend.arrays, torch.device("cpu"))
    for field in dataclasses.fields(copy):
        getattr(copy, field.name).fill_(np.nan)
    seen = np.zeros((len(TASKS), 4), int)

    def arrived(task: int, episodes: slice) -> None:
        seen[task, episodes] += 1
        copy.load(backend.arrays, task, episodes)

    rollout = backend.rollout(Still(), 4, quiet, arrived)
    assert (seen == 1).all()
    for field in dataclasses.fields(copy):
        np.testing.assert_array_equal(getattr(copy, field.name).numpy(), getattr(rollout, field.name))


def test_copies_and_tasks_and_collects_differ(backend):
    one = backend.rollout(Still(), 1, quiet).actions.copy()
    two = backend.rollout(Still(), 2, quiet).actions.copy()
    episodes = [*one.reshape(-1, HORIZON, 4), *two.reshape(-1, HORIZON, 4)]
    assert len({e.tobytes() for e in episodes}) == len(episodes)


def test_the_number_of_workers_leaves_no_trace():
    """Units are played alike whoever plays them; the policy's rows are those of one unit."""
    actor = Actor(NetworkShape(2, OBS_DIM, ACTION_DIM, (400, 400)), False, torch.Generator().manual_seed(0))
    results = []
    for workers in (1, 2):
        backend = MetaWorldBackend(
            ",".join(TASKS[:2]), reward="v2", seed=3, workers=workers, copies=6, episodes_per_env=1, eval_episodes=12
        )
        try:
            rollout = backend.rollout(ActorPolicy(actor), 1, quiet)
            evaluation = backend.evaluate(Expert(TASKS[:2]), quiet)
            arrays = (rollout.obs, rollout.actions, rollout.log_prob, rollout.rewards, rollout.success)
            results.append([*map(np.copy, arrays), evaluation.success, evaluation.returns])
        finally:
            backend.close()
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_evaluation_visits_every_goal_once_and_stops_at_success(backend):
    result = backend.evaluate(Expert(TASKS), quiet)
    assert result.success.shape == (3, 50)
    assert (result.success_rate >= 0.98).all()  # the experts solve these three
    assert len(np.unique(result.returns[0])) == 50  # on reach, every goal's return is its own


def test_evaluation_agrees_with_metaworlds_own_on_scripted_experts():
    """peg-insert-side's expert solves about 19 of 20 goals; both evaluators sample the same success probability."""
    tasks = ("peg-insert-side-v3",)
    ours = MetaWorldBackend(
        ",".join(tasks), reward="v2", seed=1, workers=2, copies=2, episodes_per_env=1, eval_episodes=50
    )
    try:
        mine = ours.evaluate(Expert(tasks), quiet).success_rate
    finally:
        ours.close()
    from metaworld.evaluation import evaluation

    makers = [
        lambda name=name: metaworld._init_each_env(
            ALL_V3_ENVIRONMENTS[name], list(metaworld.MT1(name, seed=1).train_tasks), seed=1
        )
        for name in tasks
    ]
    envs = gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    _, _, theirs, _ = evaluation(_Agent(tasks), envs, num_episodes=50)
    envs.close()
    for name, rate in zip(tasks, mine, strict=True):
        p = max(theirs[name] * (1 - theirs[name]), 0.02)
        assert abs(rate - theirs[name]) <= 4 * np.sqrt(2 * p / 50), name


class _Agent:
    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._expert, self._tasks = Expert(tasks), np.arange(len(tasks))

    def eval_action(self, obs):
        return self._expert.act(obs, self._tasks)[0]

    def reset(self, mask):
        pass


def small_backend() -> MetaWorldBackend:
    return MetaWorldBackend(
        "reach-v3,drawer-close-v3", reward="v2", seed=0, workers=1, copies=1, episodes_per_env=1, eval_episodes=1
    )


def test_a_worker_that_dies_is_named_with_its_task():
    backend = small_backend()
    with pytest.raises(ToppoError, match=r"worker process died \(exit code 9\) while stepping (reach|drawer-close)-v3"):
        backend.rollout(Dies(after=20), 1, quiet)
    backend.close()


def test_a_worker_that_dies_at_its_start_is_said():
    resource_tracker.ensure_running()
    before = spawn.get_executable()
    spawn.set_executable("/bin/false")
    try:
        with pytest.raises(WorkerDied, match=r"worker process died \(exit code 1\) while starting"):
            small_backend().rollout(Still(), 1, quiet)
    finally:
        spawn.set_executable(before)


def test_an_error_in_a_worker_is_one_line():
    backend = small_backend()
    with pytest.raises(ToppoError, match=r"task .*-v3: RuntimeError: no such thing"):
        backend.rollout(Fails(), 1, quiet)
    backend.close()


@pytest.mark.parametrize("n_members", [1, 4, 5, 50])
def test_every_member_is_in_one_unit(n_members):
    specs = [TaskSpec(i, name, ()) for i, name in enumerate(task_names("MT10"))]
    every = units(specs, n_members, 5)
    assert sorted((u.spec.index, member) for u in every for member in u.members) == [
        (k, member) for k in range(10) for member in range(n_members)
    ]


@pytest.mark.parametrize("benchmark", ["MT10", "MT50"])
@pytest.mark.parametrize("n_workers", [1, 2, 3, 16])
def test_workers_own_consecutive_units_of_equal_cost(benchmark, n_workers):
    every = units([TaskSpec(i, name, ()) for i, name in enumerate(task_names(benchmark))], 20, 5)
    parts = shares(every, n_workers)
    assert [i for part in parts for i in part] == list(range(len(every)))
    costs = [5 * step_cost(unit.spec.name) for unit in every]
    loads = [sum(costs[i] for i in part) for part in parts]
    assert max(abs(load - sum(costs) / n_workers) for load in loads) <= max(costs)


def test_a_worker_without_units_left_takes_over_the_last_of_the_busiest():
    left, lock = np.array([[0, 1], [1, 5]]), threading.Lock()
    assert [take_unit(0, left, lock) for _ in range(3)] == [0, 4, 3]
    assert [take_unit(1, left, lock) for _ in range(2)] == [1, 2]
    assert take_unit(0, left, lock) is take_unit(1, left, lock) is None


def test_more_workers_than_units_are_not_started():
    backend = MetaWorldBackend(
        "reach-v3", reward="v2", seed=0, workers=9, copies=6, episodes_per_env=1, eval_episodes=1
    )
    try:
        assert len(backend.worker_pids) == 2
    finally:
        backend.close()


def test_unknown_task_names_the_closest():
    with pytest.raises(UsageError, match="did you mean 'reach-v3'"):
        task_names("reech-v3")
    with pytest.raises(UsageError, match="did you mean 'MT10'"):
        task_names("MT100")

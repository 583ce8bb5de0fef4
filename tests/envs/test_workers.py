"""The Meta-World backend against Meta-World itself: trajectories, goals, evaluation."""

from __future__ import annotations

import gymnasium
import metaworld
import numpy as np
import pytest

from tests.envs.policies import Dies, Expert, Fails, Still
from toppo.envs.costs import step_cost
from toppo.envs.metaworld import ALL_V3_ENVIRONMENTS, TaskSpec, environment_seed, task_names, task_specs
from toppo.envs.workers import ROLLOUT, MetaWorldBackend, Slot, balance, evaluation_units
from toppo.errors import ToppoError, UsageError

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
    kept = {name: getattr(first, name).copy() for name in ("obs", "actions", "rewards", "success")}
    backend.rollout(Still(), 2, quiet)
    again = backend.rollout(Still(), 1, quiet)
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_copies_and_tasks_and_collects_differ(backend):
    one = backend.rollout(Still(), 1, quiet).actions.copy()
    two = backend.rollout(Still(), 2, quiet).actions.copy()
    episodes = [*one.reshape(-1, HORIZON, 4), *two.reshape(-1, HORIZON, 4)]
    assert len({e.tobytes() for e in episodes}) == len(episodes)


def test_evaluation_does_not_depend_on_the_number_of_workers(backend):
    """Units are played alike whoever plays them; the policy's rows are those of one unit."""
    alone = MetaWorldBackend(
        ",".join(TASKS[:2]), reward="v2", seed=3, workers=1, copies=1, episodes_per_env=1, eval_episodes=30
    )
    shared = MetaWorldBackend(
        ",".join(TASKS[:2]), reward="v2", seed=3, workers=2, copies=1, episodes_per_env=1, eval_episodes=30
    )
    try:
        one, two = (b.evaluate(Expert(TASKS[:2]), quiet) for b in (alone, shared))
        np.testing.assert_array_equal(one.success, two.success)
        np.testing.assert_array_equal(one.returns, two.returns)
    finally:
        alone.close()
        shared.close()


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


def test_an_error_in_a_worker_is_one_line():
    backend = small_backend()
    with pytest.raises(ToppoError, match=r"task .*-v3: RuntimeError: no such thing"):
        backend.rollout(Fails(), 1, quiet)
    backend.close()


def test_balance_is_longest_first():
    slots = [Slot(spec, 0) for spec in task_specs("stick-pull-v3,reach-v3,handle-press-v3", 0)]
    parts = [[slot.spec.name for slot in part] for part in balance(slots, 2)]
    assert parts == [["stick-pull-v3"], ["reach-v3", "handle-press-v3"]]
    assert len(balance(slots, 8)) == 3


@pytest.mark.parametrize("benchmark", ["MT10", "MT50"])
def test_two_workers_have_the_same_to_do(benchmark):
    slots = [Slot(TaskSpec(i, name, ()), 0) for i, name in enumerate(task_names(benchmark))]
    loads = [sum(step_cost(slot.spec.name) for slot in part) for part in balance(slots, 2)]
    assert max(loads) <= 1.02 * min(loads)


@pytest.mark.parametrize("n_goals", [1, 24, 25, 50])
def test_every_goal_is_in_one_unit_of_an_evaluation(n_goals):
    specs = [TaskSpec(i, name, ()) for i, name in enumerate(task_names("MT10"))]
    units = evaluation_units(specs, n_goals)
    assert sorted((u.spec.index, goal) for u in units for goal in u.goals) == [
        (k, goal) for k in range(10) for goal in range(n_goals)
    ]


def test_unknown_task_names_the_closest():
    with pytest.raises(UsageError, match="did you mean 'reach-v3'"):
        task_names("reech-v3")
    with pytest.raises(UsageError, match="did you mean 'MT10'"):
        task_names("MT100")

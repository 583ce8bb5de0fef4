"""The EnvPool backend: what is routed and refused, on a stand-in; and EnvPool itself where it is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.test_cli import toppo as toppo_command
from tests.training.envs.policies import NotANumber, Still
from tests.training.envs.test_workers import quiet
from toppo.common.errors import ToppoError, UsageError
from toppo.training.config import from_dict, resolve
from toppo.training.envs import envpool
from toppo.training.envs.envpool import ROUTED, EnvPoolBackend, envpool_name
from toppo.training.envs.interface import unheeded
from toppo.training.envs.metaworld import task_names
from toppo.training.envs.workers import MetaWorldBackend
from toppo.training.run.directory import Run

toppo = toppo_command  # a fixture
installed = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="EnvPool is not installed")
TASKS = ("reach-v3", "hammer-v3", "window-open-v3")
COPIES, EPISODES = 2, 2


def make() -> EnvPoolBackend:
    return EnvPoolBackend(",".join(TASKS), seed=1, workers=1, copies=COPIES, episodes_per_env=EPISODES, eval_episodes=1)


class Pool:
    """Two numbers count for it: the step of its episode, and its seed; it behaves as EnvPool does."""

    made: list[Pool]
    goal = 0.0

    def __init__(self, name, *, num_envs, env_seed, num_threads, partially_observable):
        assert not partially_observable
        assert len(env_seed) == num_envs
        assert all(0 <= seed < 2**31 for seed in env_seed)
        self.name, self.seeds, self.step = name, np.array(env_seed), 500
        Pool.made.append(self)

    def async_reset(self):
        self.step = 0

    def send(self, actions):
        assert self.step < 500, "a step past the truncation, where EnvPool resets itself"
        assert np.abs(actions).max() <= 1
        self.step += 1

    def recv(self):
        obs = np.full((len(self.seeds), 39), self.step / 10)
        obs[:, -3:] = np.array([0.0, 0.85, 0.1]) + self.goal
        return obs, self.seeds + self.step, None, None, {"success": np.array([self.step == 7, False], float)}


@pytest.fixture(scope="module")
def backend():
    made = make()
    yield made
    made.close()


@pytest.fixture
def stand_in(monkeypatch):
    Pool.made = []
    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make_gymnasium=Pool))


def test_a_collect_is_envpools_and_the_official_packages(backend, stand_in):
    seen = np.zeros((len(TASKS), COPIES * EPISODES), int)

    log_prob = np.full((len(TASKS), COPIES * EPISODES, 500), np.nan)

    def arrived(task: int, episodes: slice) -> None:
        seen[task, episodes] += 1
        log_prob[task, episodes] = backend.arrays.log_prob[task, episodes]

    rollout = backend.rollout(Still(), 3, quiet, arrived)
    assert (seen == 1).all()
    reach, window = Pool.made
    assert [reach.name, window.name] == ["MetaWorld/Reach-v3", "MetaWorld/WindowOpen-v3"]
    assert len({*reach.seeds, *window.seeds}) == 4
    steps = np.arange(1, 501)
    for task, pool in ((0, reach), (2, window)):
        for copy in range(COPIES):
            for episode in range(EPISODES):
                column = copy * EPISODES + episode
                np.testing.assert_array_equal(rollout.rewards[task, column], pool.seeds[copy] + steps)
                assert rollout.success[task, column] == (copy == 0)
                obs = rollout.obs[task, column]
                np.testing.assert_allclose(obs[:, 5], np.arange(501) / 10)
                np.testing.assert_allclose(obs[1:, 0], np.minimum(steps / 10, 0.525))  # Meta-World's space of the hand
    official = MetaWorldBackend(
        ",".join(TASKS), reward="v2", seed=1, workers=1, copies=COPIES, episodes_per_env=EPISODES, eval_episodes=1
    )
    theirs = official.rollout(Still(), 3, quiet)
    official.close()
    np.testing.assert_array_equal(rollout.actions, theirs.actions)  # the same noise
    np.testing.assert_array_equal(log_prob, theirs.log_prob)  # stands when an episode is announced
    np.testing.assert_array_equal(rollout.obs[1], theirs.obs[1])  # hammer, to the last bit
    np.testing.assert_array_equal(rollout.rewards[1], theirs.rewards[1])


def test_what_is_routed_is_said_by_name(backend):
    (notice,) = backend.notices
    assert "hammer-v3" in notice
    assert "reach-v3" not in notice
    assert backend.versions["envpool"] == "1.2.5"


def test_an_action_that_is_not_a_number_is_refused(backend, stand_in):
    with pytest.raises(ToppoError, match="task window-open-v3: the policy gave an action that is not a finite number"):
        backend._play(NotANumber(2), 1, quiet, unheeded)


def test_a_goal_outside_its_space_is_refused(backend, stand_in, monkeypatch):
    monkeypatch.setattr(Pool, "goal", 0.06, raising=False)
    with pytest.raises(ToppoError, match="task reach-v3: EnvPool drew a goal outside the goal space"):
        backend._play(Still(), 1, quiet, unheeded)


def test_routed_tasks_are_tasks():
    assert set(ROUTED) <= set(task_names("MT50"))
    assert {"pick-place-v3", "peg-insert-side-v3"} == set(ROUTED) & set(task_names("MT10"))
    assert envpool_name("door-open-v3") == "MetaWorld/DoorOpen-v3"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "--backend envpool: EnvPool is not installed; pip install 'toppo[envpool]'"),
        ("1.3.0", "EnvPool 1.3.0 is not supported; pip install 'envpool==1.2.5'"),
    ],
)
def test_without_the_right_envpool_one_line_says_what_to_install(toppo, tmp_path, monkeypatch, version, message):
    def found(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(envpool, "version", found)
    code, _, err = toppo("train", "--backend", "envpool", "--benchmark", "reach-v3")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "dumps").exists()


def test_v1_rewards_are_refused():
    with pytest.raises(UsageError, match="EnvPool has V2 rewards only"):
        resolve({"backend": "envpool", "reward": "v1"})
    with pytest.raises(UsageError, match="did you mean 'envpool'"):
        resolve({"backend": "envpol"})


def test_a_run_without_the_key_is_one_of_metaworld(tmp_path):
    config = resolve({"benchmark": "reach-v3"})
    old = {key: value for key, value in config.to_dict().items() if key != "backend"}
    assert from_dict(old) == config
    (tmp_path / "config.toml").write_text(config.to_toml().replace('backend = "metaworld"\n', ""))
    run = Run(tmp_path)
    assert run.config == config
    run.require_same_config(config, old)


@installed
def test_envpool_is_a_function_of_seed_and_collect():
    backend = make()
    try:
        first = backend.rollout(Still(), 1, quiet)
        kept = {name: getattr(first, name).copy() for name in ("obs", "rewards", "success")}
        other = backend.rollout(Still(), 2, quiet).rewards.copy()
        again = backend.rollout(Still(), 1, quiet)
        for name, value in kept.items():
            np.testing.assert_array_equal(getattr(again, name), value)
        assert (other != kept["rewards"]).any(axis=2).all()
        assert np.isfinite(kept["obs"]).all()
    finally:
        backend.close()


def play(task: str, resets: int) -> None:
    pool = envpool.TaskPool(0, task)
    pool.build([1, 2, 3], threads=1)
    for _ in range(resets):
        pool.start()
        pool.first()


@installed
@pytest.mark.parametrize("task", ["reach-v3", "door-open-v3", "stick-push-v3"])
def test_goals_stay_inside_their_space_over_three_resets(task):
    play(task, 3)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in task_names("MT50") if task not in ROUTED])
def test_goals_of_every_task_stay_inside_over_three_resets(task):
    play(task, 3)


@installed
def test_the_check_catches_the_drift():
    with pytest.raises(ToppoError, match="shelf-place-v3: EnvPool drew a goal"):
        play("shelf-place-v3", 3)

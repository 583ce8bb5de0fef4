"""The accelerated environments against the package's own, number by number: the same bits, the same random stream."""

from __future__ import annotations

from functools import lru_cache

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metaworld.policies import ENV_POLICY_MAP
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation

from tests.training.envs.test_workers import small_backend
from toppo.training.envs import accelerated, metaworld
from toppo.training.envs.metaworld import environment_class, task_names, task_specs

KINDS = (
    "push-v3",  # contacts, a quaternion from a matrix, the common caging reward
    "peg-insert-side-v3",  # sites
    "stick-pull-v3",  # two objects
    "sweep-v3",  # a caging reward of its own
    "dial-turn-v3",  # joints
    "faucet-close-v3",  # a reset that goes through super()
    "coffee-pull-v3",  # its own main object
    "window-close-v3",  # a first observation that depends on the episode before
)
"""Together they go through every replaced function."""


specs = lru_cache(task_specs)


def assert_identical(task: str, reward: str, expert: bool, episodes: int, steps: int) -> None:
    """Play the same actions in both, and compare all that a step returns, `info` included, to the last bit."""
    (spec,) = specs(task, 0)
    theirs, ours = (environment_class(task, fast)(reward_function_version=reward) for fast in (False, True))
    theirs.seed(3)
    ours.seed(3)
    policy, generator = ENV_POLICY_MAP[task](), np.random.default_rng(1)
    for _ in range(episodes):
        goal, same_goal = (int(env.np_random.choice(len(spec.goals))) for env in (theirs, ours))
        assert goal == same_goal
        for env in (theirs, ours):
            env.set_task(spec.goals[goal])
        obs, fast_obs = theirs.reset()[0], ours.reset()[0]
        assert (obs.dtype, obs.tobytes()) == (fast_obs.dtype, fast_obs.tobytes())
        for t in range(steps):
            action = policy.get_action(obs) if expert else generator.standard_normal(4)
            action = np.clip(action.astype(np.float32), -1, 1)
            obs, value, terminated, truncated, info = theirs.step(action)
            fast_obs, fast_value, *fast_ends, fast_info = ours.step(action)
            assert obs.tobytes() == fast_obs.tobytes(), t
            assert float(value) == float(fast_value), t
            assert [terminated, truncated] == fast_ends == [False, t == 499]
            assert info == fast_info, t
    assert theirs.np_random.bit_generator.state == ours.np_random.bit_generator.state


@pytest.mark.filterwarnings("ignore:Constant")  # of the experts
@pytest.mark.parametrize("expert", [True, False])
@pytest.mark.parametrize(("reward", "task"), [("v1" if i % 4 == 3 else "v2", task) for i, task in enumerate(KINDS)])
def test_every_kind_of_task_is_the_same_to_the_last_bit(task, reward, expert):
    assert_identical(task, reward, expert, episodes=2, steps=60)


@pytest.mark.filterwarnings("ignore:Constant")
def test_a_whole_episode_and_the_one_after_it():
    assert_identical("pick-place-v3", "v2", expert=True, episodes=2, steps=500)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("expert", [True, False])
@pytest.mark.parametrize("reward", ["v1", "v2"])
@pytest.mark.parametrize("task", task_names("MT50"))
def test_every_task_is_the_same_to_the_last_bit(task, reward, expert):
    assert_identical(task, reward, expert, episodes=2, steps=500)


def assert_a_closed_environments_model_is_as_new(task: str) -> list[str]:
    """What an expert's episodes and their resets changed in a model (returned), its next environment does not see."""
    (spec,) = specs(task, 0)
    accelerated._Model.spare.clear()
    used, new = (environment_class(task, True)(reward_function_version="v2") for _ in range(2))
    policy = ENV_POLICY_MAP[task]()
    for goal in spec.goals[:2]:
        used.set_task(goal)
        obs, _ = used.reset()
        for _ in range(100):
            obs = used.step(np.clip(policy.get_action(obs).astype(np.float32), -1, 1))[0]
    moved = changed(used.model, new.model)
    used.close()
    again = environment_class(task, True)(reward_function_version="v2")
    assert again.model is used.model
    assert not changed(again.model, new.model)
    return moved


def changed(model: mujoco.MjModel, other: mujoco.MjModel) -> list[str]:
    """Names of the arrays in which two models differ."""
    arrays = {name: getattr(model, name) for name in dir(model) if isinstance(getattr(model, name), np.ndarray)}
    return [name for name, array in arrays.items() if array.tobytes() != getattr(other, name).tobytes()]


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("task", KINDS)
def test_a_closed_environments_model_is_as_new(task):
    assert assert_a_closed_environments_model_is_as_new(task)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("task", task_names("MT50"))
def test_every_closed_environments_model_is_as_new(task):
    assert_a_closed_environments_model_is_as_new(task)


def test_a_finished_episode_asks_for_a_reset():
    env = environment_class("reach-v3", True)(reward_function_version="v2")
    env.set_task(specs("reach-v3", 0)[0].goals[0])
    env.reset()
    for _ in range(500):
        env.step(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="reset the env"):
        env.step(np.zeros(4, np.float32))


finite = st.floats(-1e3, 1e3)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@settings(max_examples=300)
@given(finite, finite, st.floats(0, 10), st.floats(0, 10), st.sampled_from(["long_tail", "gaussian", "hyperbolic"]))
def test_tolerance_is_metaworlds(x, lower, width, margin, sigmoid):
    for value in (x, np.float64(x)):
        arguments = (value, (lower, lower + width), np.float64(margin), sigmoid)
        theirs = reward_utils.tolerance(*arguments)
        ours = accelerated.tolerance(*arguments)
        assert (ours, type(ours)) == (theirs, type(theirs))


@pytest.mark.parametrize("wrong", [{"bounds": (1.0, 0.0), "margin": 1.0}, {"margin": -1.0}])
def test_tolerance_refuses_what_metaworld_refuses(wrong):
    with pytest.raises(ValueError, match=r"must be"):
        accelerated.tolerance(0.5, sigmoid="long_tail", **wrong)


def test_quaternions_are_scipys():
    """All four branches: the largest of the diagonal and the trace in turn."""
    rotations = Rotation.random(2_000, random_state=0).as_matrix()
    half_turns = [np.diag(signs).astype(float) for signs in ((1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, 1))]
    for matrix in (*rotations, *half_turns):
        ours = accelerated._Quaternion.from_matrix(matrix).as_quat()
        assert ours.tobytes() == Rotation.from_matrix(matrix).as_quat().tobytes()


def test_norms_and_stacks_are_numpys():
    generator = np.random.default_rng(0)
    for x in (
        *generator.standard_normal((500, 3)),
        generator.standard_normal(9)[::3],
        generator.standard_normal((2, 3)),
    ):
        ours = accelerated.norm(x)
        assert (ours, type(ours)) == (np.linalg.norm(x), np.float64)
    for parts in ((np.float64(1), np.float64(2)), (np.ones(2), 3.0), [np.ones(2), np.zeros(3)]):
        assert accelerated.hstack(parts).tobytes() == np.hstack(parts).tobytes()


def test_an_unknown_version_is_played_as_it_is_and_said_so(monkeypatch):
    monkeypatch.setattr(metaworld, "COMPARED", {"metaworld": ("9.9",), "mujoco": metaworld.COMPARED["mujoco"]})
    backend = small_backend()
    backend.close()
    assert backend.versions["metaworld_path"] == "official"
    (notice,) = backend.notices
    said = f"metaworld {backend.versions['metaworld']} is not tested with the accelerated environments"
    assert notice.startswith(said)

"""TaskForce in the trainer: on either side, through a checkpoint, in the dump, and replayed from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.training.learner.test_update import K, make_learner, make_rollout, run, small_config
from toppo.combiners import make
from toppo.common.errors import UsageError
from toppo.dump import open_dump, verify
from toppo.training.config import TrainConfig, resolve
from toppo.training.run import checkpoint as checkpoints
from toppo.training.run.checkpoint import Checkpoint, learner_state, restore_learner
from toppo.training.run.recording import Recorder
from toppo.training.run.schedule import plan

SMALL = "hidden=8,batch=4,lr=0.01"
COLLECTS, UPDATES = 2, 12


def config_with(**options: object) -> TrainConfig:
    combiners = {"actor_combiner": f"taskforce:{SMALL}", "critic_combiner": f"taskforce:{SMALL},r_g=imtl"}
    return small_config(**{**combiners, **options})


def test_a_restored_learner_goes_on_bit_for_bit(tmp_path):
    config = config_with()
    learner = make_learner(config)
    run(learner, make_rollout(1), 1)
    path = checkpoints.save(tmp_path, Checkpoint(1, config.to_dict(), learner_state(learner)))
    later = run(learner, make_rollout(2), 2)
    again = make_learner(config)
    restore_learner(again, checkpoints.load(path).arrays)
    for one, other in zip(later, run(again, make_rollout(2), 2), strict=True):
        for side in ("actor", "critic"):
            np.testing.assert_array_equal(
                other.sides[side].combination.weights, one.sides[side].combination.weights, strict=True
            )
    left, right = learner_state(learner), learner_state(again)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two collects of taskforce on both sides, every minibatch dumped."""
    config = config_with(env_steps=COLLECTS * 2000, env_steps_per_epoch=2000, env_steps_per_collect=2000, dump_every=1)
    config = replace(config, dump_minibatches=UPDATES, dump_slabs=False)
    learner = make_learner(config)
    path = tmp_path_factory.mktemp("run") / "dump.zarr"
    recorder = Recorder(path, plan(config), learner, {}, None)
    for collect in (1, 2):
        recorder.begin(collect)
        learner.update(learner.prepare(make_rollout(collect)), collect, recorder.observe)
        names = ("popart_mu", "popart_sigma", "popart_count", "success", "success_ema", "episode_return")
        recorder.finish(2000 * collect, {name: np.ones(K) for name in names})
    recorder.close()
    return path


def test_rewards_reach_the_dump(dumped: Path):
    assert verify(str(dumped)).ok
    dump = open_dump(dumped)
    for side in ("actor", "critic"):
        whole, r_l, r_g = (
            dump.values(f"{side}_{name}").ravel() for name in ("reward", "reward_loss", "reward_gradient")
        )
        assert np.isnan([whole[0], r_l[0], r_g[0]]).all()
        factor = 1e-3 if side == "actor" else 1.0
        np.testing.assert_allclose(whole[1:], r_l[1:] + factor * r_g[1:], rtol=1e-12)
        seen = dump.values(f"loss_{side}").reshape(-1, K)
        seen = np.log(seen) if side == "critic" else seen
        np.testing.assert_allclose(r_l[1:], -np.diff(seen, axis=0).mean(axis=1), rtol=1e-9, atol=1e-15)
        assert (r_g[1:] < 0).all()


@pytest.mark.parametrize("side", ["actor", "critic"])
def test_a_replay_of_every_minibatch_is_exact(dumped: Path, side: str):
    from toppo_diag.commands import replay

    spec = open_dump(dumped).attrs["combiners"][side]
    product = replay(dumped, side=side, combiners=spec)
    (number,) = product.headline
    assert number["distance_to_training_high"] == 0
    assert len(product.rows["-steps"]) == COLLECTS * UPDATES


def test_other_runs_have_no_rewards():
    assert all(make(name).reports == {} for name in ("mean", "fairgrad", "famo"))
    assert set(make("taskforce").reports) == {"reward", "reward_loss", "reward_gradient"}


def test_the_actor_takes_losses_as_they_are_and_seeds_are_the_runs():
    config = resolve({"actor_combiner": "taskforce", "critic_combiner": "taskforce", "seed": 7})
    for spec, loss in ((config.actor_combiner, "raw"), (config.critic_combiner, "log")):
        assert f"loss={loss}," in spec
        assert spec.endswith("seed=7")
    assert resolve({"critic_combiner": "taskforce:seed=3", "seed": 7}).critic_combiner.endswith("seed=3")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"actor_combiner": "taskforce:loss=log"}, "losses can be negative"),
        ({"critic_combiner": "taskforce:strategy=same"}, "a second look at every batch"),
        ({"critic_combiner": "taskforce:observation=raw"}, "the gradients themselves"),
        ({"critic_combiner": "taskforce:buffer=9"}, "a buffer of 9 never holds a batch of 64"),
        ({"critic_combiner": "taskforce", "benchmark": "reach-v3"}, "only one: use mean"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(options: dict, says: str):
    with pytest.raises(UsageError, match=says):
        resolve(options)

"""Checkpoints: exact, atomic, two of them, and no code inside."""

import numpy as np
import pytest
import torch

from tests.training.learner.test_update import make_learner, make_rollout, run, small_config
from toppo.common.errors import ToppoError
from toppo.training.run import checkpoint as checkpoints
from toppo.training.run.checkpoint import Checkpoint, learner_state, restore_learner
from toppo.training.run.directory import Run


@pytest.mark.parametrize("popart", ["welford", "ema", "off"])
def test_a_restored_learner_goes_on_bit_for_bit(tmp_path, popart):
    config = small_config(popart=popart)
    learner = make_learner(config)
    run(learner, make_rollout(1), 1)
    path = checkpoints.save(tmp_path, Checkpoint(1, config.to_dict(), learner_state(learner)))
    run(learner, make_rollout(2), 2)

    stored = checkpoints.load(path)
    again = make_learner(config)
    restore_learner(again, stored.arrays)
    run(again, make_rollout(2), 2)
    assert (stored.collect, stored.config) == (1, config.to_dict())
    left, right = learner_state(learner), learner_state(again)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name])
    assert torch.equal(learner.actor.trunk[0].weight, again.actor.trunk[0].weight)  # the views follow


def some(collect: int) -> Checkpoint:
    return Checkpoint(collect, {"seed": 1}, {"theta": np.full(1000, collect, np.float32)})


def test_the_last_two_are_kept_and_a_damaged_one_falls_back(tmp_path):
    for collect in range(1, 5):
        checkpoints.save(tmp_path, some(collect))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["collect-000003.npz", "collect-000004.npz"]
    newest = tmp_path / "collect-000004.npz"
    newest.write_bytes(newest.read_bytes()[:-300])
    notes: list[str] = []
    loaded = checkpoints.load_latest(tmp_path, notes.append)
    assert loaded is not None
    assert loaded.collect == 3
    assert len(notes) == 1
    assert "collect-000004.npz is not a readable checkpoint" in notes[0]
    (tmp_path / "collect-000003.npz").write_bytes(b"nonsense")
    with pytest.raises(ToppoError, match=r"none of the checkpoints in .* can be read"):
        checkpoints.load_latest(tmp_path, notes.append)


def test_any_damaged_byte_is_found_or_harmless(tmp_path):
    path = checkpoints.save(tmp_path, some(1))
    whole, good = path.read_bytes(), checkpoints.load(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            loaded = checkpoints.load(path)
        except ToppoError:
            continue
        assert (loaded.collect, loaded.config) == (good.collect, good.config)
        np.testing.assert_array_equal(loaded.arrays["theta"], good.arrays["theta"])


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.load_latest(tmp_path, print) is None


def test_pickled_content_is_refused(tmp_path):
    path = tmp_path / "collect-000001.npz"
    np.savez(path, meta=np.array("{}"), theta=np.array([object()], dtype=object))
    with pytest.raises(ToppoError, match="not a readable checkpoint"):
        checkpoints.load(path)


def test_another_configuration_is_refused_with_the_keys(tmp_path):
    config = small_config()
    stored = {**config.to_dict(), "gamma": 0.9}
    with pytest.raises(ToppoError, match=r"another configuration \(gamma = 0.99, checkpoint 0.9\)"):
        Run(tmp_path).require_same_config(config, stored)
    Run(tmp_path).require_same_config(
        config, {**config.to_dict(), "device": "cuda"}
    )  # a run may move to another device
    with pytest.raises(ToppoError, match="gone_key = None, checkpoint 3"):
        Run(tmp_path).require_same_config(config, {**config.to_dict(), "gone_key": 3})

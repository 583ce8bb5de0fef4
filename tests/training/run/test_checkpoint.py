"""Checkpoints: exact, atomic, two of them, checked whole, and no code inside."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.learner.test_update import make_learner, make_rollout, run, small_config
from toppo.common.errors import ToppoError
from toppo.training.run import checkpoint as checkpoints
from toppo.training.run.checkpoint import Checkpoint, learner_state, require_fits, restore_learner
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


def test_a_flip_in_the_table_of_contents_never_hides_an_array(tmp_path):
    """Byte 32064 of a real checkpoint was one: the next names were swallowed, and Adam began anew."""
    arrays = {name: np.arange(20.0) + n for n, name in enumerate(("theta", "adam/2/exp_avg", "adam/2/step", "z"))}
    path = checkpoints.save(tmp_path, Checkpoint(1, {"seed": 1}, arrays))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for position in range(start, len(whole)):
        for mask in (0xFF, 0xC0, 0x01):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            path.write_bytes(bytes(damaged))
            try:
                loaded = checkpoints.load(path)
            except ToppoError:
                continue
            assert loaded.arrays.keys() == arrays.keys(), position
            for name, value in arrays.items():
                np.testing.assert_array_equal(loaded.arrays[name], value)


@pytest.fixture(scope="module")
def trained():
    """A learner after one update phase, and one before any."""
    config = small_config()
    learner = make_learner(config)
    run(learner, make_rollout(1), 1)
    state = {**learner_state(learner), "success_ema": np.zeros(len(learner.tasks))}
    return config, state, make_learner(config)


def save_old(directory: Path, checkpoint: Checkpoint) -> None:
    """A checkpoint as earlier versions wrote it, without digests."""
    meta = np.array(json.dumps({"collect": checkpoint.collect, "config": checkpoint.config}))
    np.savez(directory / f"collect-{checkpoint.collect:06d}.npz", meta=meta, **checkpoint.arrays)


def without(name: str) -> Callable[[dict], dict]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    return lambda state: {**state, name: change(state[name])}


@pytest.mark.parametrize("save", [checkpoints.save, save_old])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("theta"), "theta is missing"),
        (without("success_ema"), "success_ema is missing"),
        (without("adam/0/exp_avg"), "adam/0/exp_avg is missing"),
        (without("popart/mu"), "popart/mu is missing"),
        (changed("adam/0/exp_avg", lambda a: a[:-1]), "adam/0/exp_avg is float32 of shape"),
        (changed("theta", lambda a: a.astype(np.float64)), "theta is float64"),
        (changed("adam/0/step", lambda a: np.array([1.0], np.float32)), "adam/0/step is float32 of shape"),
        (lambda state: {**state, "adam/7/step": np.zeros((), np.float32)}, "adam/7/step does not belong to this run"),
        (lambda state: {**state, "combiner/critic/extra": np.zeros(3)}, "the critic's combiner does not fit"),
        (changed("theta", lambda a: np.where(np.arange(a.size) == 5, np.float32("nan"), a)), "theta holds a number"),
        (changed("adam/0/exp_avg_sq", lambda a: np.full_like(a, np.nan)), "adam/0/exp_avg_sq holds a number"),
        (changed("popart/sigma", lambda a: np.full_like(a, np.inf)), "popart/sigma holds a number"),
    ],
)
def test_what_does_not_fit_falls_back_to_the_checkpoint_before(tmp_path, trained, save, change, message):
    config, state, fresh = trained
    save(tmp_path, Checkpoint(1, config.to_dict(), state))
    save(tmp_path, Checkpoint(2, config.to_dict(), change(state)))
    before = learner_state(fresh)
    notes: list[str] = []
    found = checkpoints.load_latest(tmp_path, notes.append, lambda stored: require_fits(fresh, stored))
    assert found is not None
    assert found.collect == 1
    assert len(notes) == 1
    assert "collect-000002.npz is not a readable checkpoint" in notes[0]
    assert message in notes[0]
    for name, value in learner_state(fresh).items():  # nothing was restored
        np.testing.assert_array_equal(value, before[name])


def test_a_checkpoint_before_the_first_collect_fits(tmp_path, trained):
    config, _, fresh = trained
    state = {**learner_state(fresh), "success_ema": np.full(len(fresh.tasks), np.nan)}
    path = checkpoints.save(tmp_path, Checkpoint(0, config.to_dict(), state))
    require_fits(fresh, checkpoints.load(path))


def test_a_renamed_checkpoint_is_noticed_and_costs_no_good_one(tmp_path):
    for collect in (1, 2):
        checkpoints.save(tmp_path, some(collect))
    for later in (8, 9):
        (tmp_path / f"collect-00000{later}.npz").write_bytes((tmp_path / "collect-000002.npz").read_bytes())
    notes: list[str] = []
    found = checkpoints.load_latest(tmp_path, notes.append)
    assert found is not None
    assert found.collect == 2
    assert ["its content is of collect 2: the file was renamed" in note for note in notes] == [True, True]
    for collect in (3, 4):
        checkpoints.save(tmp_path, some(collect))
    found = checkpoints.load_latest(tmp_path, notes.append)
    assert found is not None
    assert found.collect == 4


def test_the_order_is_by_number_beyond_six_digits(tmp_path):
    for collect in (999_998, 999_999, 1_000_000):
        checkpoints.save(tmp_path, some(collect))
    found = checkpoints.load_latest(tmp_path, pytest.fail)
    assert found is not None
    assert found.collect == 1_000_000


@pytest.mark.parametrize(
    "meta",
    [
        *("[]", "{}", '{"collect": "1", "config": {}}', '{"collect": 1, "config": []}', "null", "[" * 9999, "{", '"x"'),
        *('{"collect": 1, "config": {}, "version": 3}', '{"collect": 1, "config": {}, "version": 2, "arrays": {}}'),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, meta):
    path = tmp_path / "collect-000001.npz"
    np.savez(path, meta=np.array(meta), theta=np.zeros(3))
    with pytest.raises(ToppoError, match=r"collect-000001\.npz is not a readable checkpoint"):
        checkpoints.load(path)


def test_the_message_never_says_how_to_load_a_pickle(tmp_path):
    path = tmp_path / "collect-000001.npz"
    np.savez(path, meta=np.array([{}], dtype=object))
    with pytest.raises(ToppoError) as refused:
        checkpoints.load(path)
    assert "pickle" not in str(refused.value)


def test_no_other_kind_of_file_is_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "collect-000001.npz")
    (tmp_path / "collect-000002.npz").mkdir()
    notes: list[str] = []
    with pytest.raises(ToppoError, match="none of the checkpoints"):
        checkpoints.load_latest(tmp_path, notes.append)
    assert ["it is not a regular file" in note for note in notes] == [True, True]

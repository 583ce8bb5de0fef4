"""Table B.1's defaults, presets, precedence, and what a wrong configuration says."""

import time

import pytest

from toppo.common.errors import UsageError
from toppo.training.config import PRESETS, TYPES, from_dict, resolve
from toppo.training.run.schedule import plan


def test_defaults_are_table_b1():
    mt10, mt50 = resolve({}), resolve({"benchmark": "MT50"})
    assert (mt10.env_steps, mt10.env_steps_per_epoch, mt10.env_steps_per_collect) == (20_000_000, 200_000, 100_000)
    assert (mt50.env_steps, mt50.env_steps_per_epoch, mt50.env_steps_per_collect) == (100_000_000, 1_000_000, 500_000)
    for c in (mt10, mt50):
        assert c.env_steps // c.env_steps_per_epoch == 100
        assert c.env_steps_per_collect // c.minibatches in (3_125, 15_625)
        assert (c.repeats, c.learning_rate, c.max_grad_norm, c.gamma) == (16, 3e-4, 1.0, 0.99)
        assert (c.gae_lambda, c.clip, c.value_clip, c.value_coef, c.entropy_coef) == (0.97, 0.2, True, 0.001, 0.005)
        assert (c.hidden, c.layernorm, c.popart) == ((400, 400, 400), "critic", "welford")
        assert c.critic_combiner == "fairgrad:alpha=1"
        assert c.actor_combiner.startswith("pcgrad")


def test_schedule_is_the_papers():
    schedule = plan(resolve({"dump_every": 5}))
    assert schedule.collects == 200
    assert len(schedule.evaluations) == 51
    assert schedule.evaluations[:2] == (0, 4)
    assert len(schedule.snapshots) == 40
    assert schedule.updates == 512
    assert schedule.dumped_minibatches == (0, 128, 256, 383, 511)
    assert len(schedule.streamed_minibatches) == 16


@pytest.mark.parametrize("preset", PRESETS)
def test_each_rung_is_a_preset_and_survives_toml(preset, tmp_path):
    config = resolve({}, preset=preset)
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    assert resolve({}, file=file) == config == from_dict(config.to_dict())


def test_options_win_over_file_over_preset(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('preset = "vanilla"\npopart = "ema"\nseed = 4\n')
    config = resolve({"seed": 7}, file=file)
    assert (config.layernorm, config.popart, config.seed) == ("none", "ema", 7)


def test_combiner_defaults_of_the_paper():
    config = resolve({"actor_combiner": "fairgrad", "critic_combiner": "cagrad"})
    assert config.actor_combiner == "fairgrad:alpha=2"  # Table B.1
    assert "c=0.9" in config.critic_combiner  # Section B.4, MT10
    assert "c=0.5" in resolve({"benchmark": "MT50", "critic_combiner": "cagrad"}).critic_combiner
    assert resolve({"actor_combiner": "fairgrad:alpha=0.5"}).actor_combiner == "fairgrad:alpha=0.5"


@pytest.mark.parametrize(
    ("options", "preset", "message"),
    [
        ({"dump_every": 0}, None, "`dump_every=0`: must be at least 1"),
        ({"critic_combiner": "fairgard"}, None, "fairgrad"),
        ({"critic_combiner": "fairgrad:alhpa=1"}, None, "alpha"),
        ({"critic_combiner": "fairgrad:alpha=0"}, None, "alpha"),
        ({}, "topo", "did you mean 'toppo'"),
        ({"layernorm": "citic"}, None, "did you mean 'critic'"),
        ({"reward": "v3"}, None, "unknown reward 'v3'"),
        ({"gamma": 1.5}, None, "`gamma=1.5`: must lie between 0 and 1"),
        ({"learning_rate": 0.0}, None, "`learning_rate=0.0`: must be positive"),
        ({"benchmark": "reach-v3,reach-v3"}, None, "named twice"),
        ({"benchmark": "reach,reach-v3"}, None, "reach-v3 is named twice"),
        ({"benchmark": ","}, None, "give MT10, MT25, MT50 or task names"),
        ({"benchmark": ""}, None, "give MT10, MT25, MT50 or task names"),
        ({"eval_episodes": 60}, None, "at most 50"),
        ({"dump_minibatches": 600}, None, "each collect has 512 minibatches; give at most 512"),
        ({"dump_keepbits": 30}, None, "between 1 and 23"),
        ({"dump_keepbits": 12, "dump_slabs": False}, None, "needs `dump_slabs`"),
        ({"repeats": "16"}, None, "give a value of type int"),
        ({"repeats": True}, None, "give a value of type int"),
        ({"value_clip": 1}, None, "give a value of type bool"),
        ({"hidden": "wide"}, None, "give a list of integers"),
    ],
)
def test_wrong_values_are_named(options, preset, message):
    with pytest.raises(UsageError, match=message):
        resolve(options, preset=preset)


def test_short_names_of_tasks_are_those_of_the_figures():
    assert resolve({"benchmark": "reach, peg-insert-side,push-v3"}).benchmark == "reach-v3,peg-insert-side-v3,push-v3"
    assert [resolve({"benchmark": name}).benchmark for name in ("MT10", "MT50")] == ["MT10", "MT50"]


def test_unknown_toml_key_names_the_closest(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("learning_rte = 1e-3\n")
    with pytest.raises(UsageError, match="did you mean 'learning_rate'"):
        resolve({}, file=file)
    file.write_text("learning_rate = \n")
    with pytest.raises(UsageError, match="not valid TOML"):
        resolve({}, file=file)
    with pytest.raises(UsageError, match="cannot read"):
        resolve({}, file=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_steps_per_collect": 101_000}, "must be a multiple of 5,000 .* nearest: 100000"),
        ({"env_steps_per_epoch": 250_000}, "must be a multiple of 100,000"),
        ({"env_steps": 150_000}, "nearest: 200000"),
        ({"env_steps": 400_000, "dump_every": 5}, "only 4 collects"),
        ({"env_steps_per_collect": 5_000, "minibatches": 400}, "give at most 250"),
    ],
)
def test_budgets_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        plan(resolve(options))


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({}, 20),
        ({"env_steps_per_collect": 15_000}, 3),
        ({"backend": "envpool"}, 4),
        ({"backend": "envpool", "env_steps_per_collect": 15_000}, 1),
        ({"envs_per_task": 2}, 2),
    ],
)
def test_copies_play_whole_episodes(options, copies):
    config = resolve(options)
    assert config.envs_per_task == copies
    budgets = dict.fromkeys(("env_steps", "env_steps_per_epoch"), 2 * config.env_steps_per_collect)
    schedule = plan(resolve({**options, **budgets}))
    assert schedule.episodes_per_env * copies * 500 * 10 == config.env_steps_per_collect


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("seed", 2**32, "4,294,967,295"),
        ("seed", 10**400, "4,294,967,295"),
        ("repeats", 1_000_000_000_000, "10,000"),
        ("minibatches", 10**12, "1,000,000"),
        ("env_steps", 10**20, "1,000,000,000,000,000"),
        ("env_steps_per_collect", 10**15, "100,000,000"),
        ("workers", 10**6, "4,096"),
        ("envs_per_task", 10**9, "100,000"),
        ("dump_every", 10**20, "1,000,000,000,000"),
        ("eval_every_epochs", 10**20, "1,000,000,000"),
        ("dump_minibatches", 10**12, "has 512"),
        ("gram_every", 10**30, "has 512"),
        ("eval_episodes", 10**30, "at most 50"),
        ("clip", 1e308, "1e+09"),
        ("value_coef", 1e308, "1e+09"),
        ("entropy_coef", 1e308, "1e+09"),
        ("learning_rate", 1e308, "1000"),
        ("adam_eps", 1e308, "1000"),
        ("max_grad_norm", 1e308, "1e+12"),
        ("popart_sigma_min", 1e308, "1e+09"),
        ("learning_rate", 1e-300, "at least 1e-30"),
        ("learning_rate", 10**400, "finite number"),
        ("clip", float("nan"), "finite number"),
        ("hidden", 10_000_000_000, "none above 16,384"),
        ("hidden", [10**5000], "none above 16,384"),
        ("hidden", [4] * 101, "at most 100 widths"),
        ("critic_combiner", "taskforce:seed=" + "9" * 400, "seed must be at most 4294967295"),
        ("critic_combiner", "taskforce:seed=" + "9" * 5000, "seed takes an integer"),
        ("critic_combiner", "taskforce:hidden=" + "9" * 40, "hidden must lie between"),
        ("critic_combiner", "fairgrad:alpha=1e308", "alpha must lie between"),
        ("critic_combiner", "mean:" + "x" * 5000, "key=value"),
        ("preset", "x" * 5000, "unknown preset"),
    ],
)
def test_numbers_have_bounds(option, value, limit):
    """Each was a traceback, a hang, or a run that could not start."""
    given = {} if option == "preset" else {option: value}
    with pytest.raises(UsageError) as refused:
        resolve(given, preset=value if option == "preset" else None)
    assert limit in str(refused.value)
    assert option in str(refused.value)
    assert len(str(refused.value)) < 800


def test_every_number_of_the_configuration_is_bounded():
    for key, kind in TYPES.items():
        if kind in (int, float, int | None):
            for wrong in (-1, 10**25, -(10**25)):
                with pytest.raises(UsageError, match=f"`{key}="):
                    resolve({key: wrong})


def test_the_largest_seed_draws_goals():
    from toppo.training.envs.metaworld import task_specs

    assert len(task_specs("reach-v3", resolve({"seed": 2**32 - 1}).seed)[0].goals) == 50


def test_a_plan_of_many_collects_is_made_at_once():
    start = time.perf_counter()
    config = resolve({"env_steps": 10**15, "dump_every": 1, "gram_every": 1, "repeats": 10_000})
    schedule = plan(config)
    assert schedule.collects == len(schedule.snapshots) == 10**10
    assert len(schedule.evaluations) == 10**10 // 4 + 1
    assert schedule.evaluations[-1] == schedule.evaluations[len(schedule.evaluations) - 1] == 10**10
    assert len(schedule.streamed_minibatches) == 320_000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("collects", "every"), [(7, 3), (6, 3), (1, 5), (5, 1)])
def test_evaluations_are_at_the_start_regular_and_at_the_end(collects, every):
    steps = {"env_steps": collects * 100_000, "env_steps_per_epoch": 100_000, "eval_every_epochs": every}
    found = plan(resolve({**steps, "dump_every": None})).evaluations
    expected = sorted({*range(0, collects, every), collects})
    assert list(found) == expected
    assert [c for c in range(collects + 3) if c in found] == expected
    assert found[1:] == tuple(expected[1:])
    assert found[-1] == collects


@pytest.mark.parametrize(
    "text",
    [
        'preset = ["a"]',
        "preset = {a = 1}",
        "hidden = " + "[" * 5000 + "]" * 5000,
        "hidden = " + "[" * 300 + "]" * 300,
        "benchmark = " + "[" * 300 + "]" * 300,
        "clip = " + "[" * 300 + "]" * 300,
        "seed = " + "9" * 5000,
        "seed = 0x" + "f" * 5000,
        "clip = 0x" + "f" * 5000,
        "repeats = 1979-05-27T07:32:00Z",
        "repeats = {}",
        "repeats = nan",
        "clip = inf",
        "hidden = [1.5]",
        "hidden = {a = 1}",
        "benchmark = [[1]]",
        "critic_combiner = 5",
        "device = []",
        "value_clip = 1",
        '"a\\nb" = 1',
        "a.b.c = 1",
        "[rungs]",
    ],
)
def test_whatever_a_file_holds_is_one_line(tmp_path, text):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        resolve({}, file=file)
    assert len(str(refused.value)) < 800


@pytest.mark.parametrize("combiner", ["dwa", "famo", "uw"])
def test_a_combiner_that_needs_positive_losses_is_refused_on_the_actor(combiner):
    with pytest.raises(UsageError, match=f"{combiner} needs positive ones"):
        resolve({"actor_combiner": combiner})
    assert resolve({"critic_combiner": combiner}).critic_combiner.startswith(combiner)

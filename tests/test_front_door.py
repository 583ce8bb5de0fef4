"""`import toppo`: what it offers, how much it loads, and whole runs through it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import toppo

SMALL = {
    **{"benchmark": ["drawer-close-v3", "reach-v3"], "hidden": "8,8", "env_steps": 2000, "env_steps_per_epoch": 1000},
    **{"env_steps_per_collect": 1000, "eval_every_epochs": 2, "eval_episodes": 1, "repeats": 1, "minibatches": 2},
    **{"dump_every": 1, "dump_minibatches": 1, "workers": 1, "device": "cpu"},
}
HEAVY = {"torch", "metaworld", "zarr", "scipy", "xarray", "pandas", "rich", "typer", "numpy"}


def loaded(code: str) -> set[str]:
    """Packages that a fresh process has loaded after this code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_import_loads_nothing_heavy():
    assert not loaded("import toppo; toppo.__version__; toppo.UsageError") & HEAVY
    assert not loaded("import toppo; toppo.make('fairgrad'); toppo.FairGrad") & {"torch", "metaworld", "zarr"}
    assert not loaded("import toppo; toppo.open_dump; toppo.TrainConfig; toppo.train") & {"torch", "metaworld"}


@pytest.mark.parametrize("name", toppo.__all__)
def test_every_name_is_there(name: str):
    assert getattr(toppo, name) is not None
    assert name in dir(toppo)


def test_every_combiner_class_is_there():
    from toppo import combiners

    classes = {name for name in combiners.__all__ if isinstance(getattr(combiners, name), type)}
    methods = {name for name in classes if issubclass(getattr(combiners, name), combiners.Combiner)}
    assert methods <= set(toppo.__all__)
    assert {type(toppo.make(name)).__name__ for name in combiners.names()} <= methods


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'toppo' has no attribute 'trian'"):
        toppo.trian  # noqa: B018


# --- configurations


def test_a_configuration_is_complete_and_takes_what_the_command_line_takes():
    config = toppo.TrainConfig(
        benchmark=["reach-v3", "push-v3"],
        hidden="64, 32",
        actor_combiner=toppo.make("cagrad"),
        critic_combiner="fairgrad",
        seed=np.int64(3),
        gamma=np.float32(0.5),
    )
    assert (config.benchmark, config.hidden, config.seed, config.gamma) == ("reach-v3,push-v3", (64, 32), 3, 0.5)
    assert (config.env_steps, config.env_steps_per_collect, config.envs_per_task) == (4_000_000, 20_000, 20)
    assert (config.critic_combiner, config.actor_combiner) == ("fairgrad:alpha=1", toppo.make("cagrad").spec)
    assert toppo.TrainConfig(**config.to_dict()) == config
    assert toppo.TrainConfig(hidden=64).hidden == toppo.TrainConfig(hidden=[64]).hidden == (64,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dump_every": 0}, "`dump_every=0`: must be at least 1; leave it out to record no snapshots"),
        ({"dump_evry": 5}, "unknown option 'dump_evry': did you mean 'dump_every'?"),
        ({"preset": "topo"}, "unknown preset 'topo': did you mean 'toppo'?"),
        ({"hidden": "400,x"}, "`hidden=400,x`: give a list of integers, or widths separated by commas"),
        ({"hidden": [0]}, "`hidden=0`: give at least one width, and only positive ones"),
        ({"benchmark": 10}, "`benchmark=10`: give MT10, MT25, MT50 or task names"),
        ({"benchmark": ["reach-v3", "pusch-v3"]}, "unknown task 'pusch-v3': did you mean 'push-v3'?"),
        ({"device": "tpu"}, "`device=tpu`: give auto, cpu, cuda or cuda:N"),
        ({"name": "a/b"}, "`name='a/b'`: use letters"),
        ({"config": "none.toml"}, "cannot read none.toml"),
        ({"config": 3}, "`config=3`: give a TrainConfig, or the path of a TOML file"),
        ({"critic_combiner": "fairgrad:alpha=0"}, "`critic_combiner=fairgrad:alpha=0`: "),
        ({"actor_combiner": "taskforce:loss=log"}, "`actor_combiner=taskforce:loss=log`: "),
        ({"env_steps": 150_000}, "`env_steps=150000`: must be a multiple of 100,000 (`env_steps_per_collect`)"),
        ({"config": toppo.TrainConfig(), "preset": "ln"}, "`preset=ln`: `config` is complete already"),
    ],
)
def test_wrong_options_are_one_line_without_flags(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(toppo.UsageError) as refused:
        toppo.train(**options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "--" not in str(refused.value)
    assert not (tmp_path / "dumps").exists()


def test_there_is_no_run_and_no_dump(tmp_path):
    run = toppo.Run(tmp_path)
    for use in (toppo.resume, toppo.evaluate):
        with pytest.raises(toppo.UsageError, match=r"is not a run: it has no config\.toml"):
            use(run)
    with pytest.raises(toppo.DumpError, match=r"dump\.zarr"):
        run.dump  # noqa: B018
    assert (run.collects, run.env_steps, run.mean_success, len(run.progress)) == (0, 0, None, 0)
    assert "is not a run" in repr(run)


# --- whole runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run trained through the front door, with its configuration in a file."""
    directory = tmp_path_factory.mktemp("front-door")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        Path("options.toml").write_text("seed = 3\n")
        yield toppo.train(Path("options.toml"), name="one", preset="ln-popart", progress=False, **SMALL)


def test_a_run_is_what_it_recorded(run, capsys):
    assert os.fspath(run) == str(run.path) == str(Path("dumps/one"))
    assert (run.config.seed, run.config.popart, run.config.hidden) == (3, "welford", (8, 8))
    assert repr(run).startswith(f"<Run {run.path}: drawer-close-v3,reach-v3, 2,000 of 2,000 steps, mean success ")
    assert (run.collects, run.env_steps) == (2, 2000)
    assert (run.dump.complete, run.dump.n_snapshots) == (True, 2)

    progress, evaluations = run.progress, run.evaluations
    assert list(progress.columns[:3]) == list(evaluations.columns[:3]) == ["collect", "env_steps", "task"]
    assert progress[["collect", "task"]].to_numpy().tolist() == [
        [collect, task] for collect in (1, 2) for task in ("drawer-close-v3", "reach-v3")
    ]
    np.testing.assert_allclose(progress.groupby("collect")["success"].mean(), progress["mean_success"][::2])
    assert {"popart_sigma", "loss_critic", "critic_norm_spread_median", "actor_worst_residual"} <= set(progress)
    assert sorted(set(evaluations["collect"])) == [0, 2]
    assert evaluations["mean_success"].iloc[-1] == run.mean_success
    assert capsys.readouterr() == ("", "")  # progress=False


def test_evaluate_is_a_table_by_task(run):
    table = toppo.evaluate(run, episodes=1, progress=False)
    last = run.evaluations.query("collect == 2").set_index("task")
    assert list(table.index) == ["drawer-close-v3", "reach-v3"]
    np.testing.assert_array_equal(table[["success", "return"]], last[["success", "return"]])
    assert table.attrs == {"collect": 2, "env_steps": 2000, "mean_success": run.mean_success} | {
        "worst_10_success": run.mean_success
    }


def test_an_existing_run_is_refused_and_a_finished_one_stays(run):
    with pytest.raises(toppo.UsageError, match=r"dumps.one exists: give another `name`, or go on with it by"):
        toppo.train(run.config, name="one", progress=False)
    before = run.progress_log.read_bytes()
    assert toppo.resume(run.path, progress=False).progress_log.read_bytes() == before


def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_end(run):
    handler = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not (log := Path("dumps/two/progress.jsonl")).exists() or not log.stat().st_size:
            time.sleep(0.005)
        if signal.getsignal(signal.SIGINT) is not handler:  # else the run is over, and pytest would be interrupted
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(toppo.Interrupted, match=r"stopped by SIGINT; go on with `toppo resume dumps.two`"):
        toppo.train(run.config, name="two", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    two = toppo.Run("dumps/two")
    assert two.collects < 2
    assert toppo.resume("dumps/two", progress=False).progress_log.read_bytes() == run.progress_log.read_bytes()


def test_training_works_outside_the_main_thread(run):
    made: list[toppo.Run] = []
    thread = threading.Thread(target=lambda: made.append(toppo.train(run.config, name="three", progress=False)))
    thread.start()
    thread.join()
    assert made[0].progress_log.read_bytes() == run.progress_log.read_bytes()


def test_a_script_needs_no_main_guard(run, tmp_path):
    """Worker processes do not run the script of the user again."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import toppo\nprint(toppo.train(name='four', progress=False, **{SMALL | {'env_steps': 1000}}))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"<Run {Path('dumps/four')}: ")


def test_an_estimate_is_the_plan_and_its_cost(run):
    estimate = toppo.estimate(run.config, seed=9)
    assert (estimate.schedule.config.seed, estimate.schedule.collects, estimate.tasks) == (
        9,
        2,
        ("drawer-close-v3", "reach-v3"),
    )
    assert estimate.hours > 0
    assert "2 of 1,000 steps" in str(estimate)
    assert not Path("dumps/run1").exists()

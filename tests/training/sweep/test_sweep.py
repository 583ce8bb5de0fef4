"""Sweeps: what a file stands for, what happens to each run, and whole sweeps of tiny real runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_cli import run as run_cli
from tests.training.run.test_runs import assert_same_run
from toppo import cli
from toppo.common.errors import UsageError
from toppo.training.config import PRESETS, resolve
from toppo.training.run.directory import Run
from toppo.training.sweep import jobs as sweep_jobs
from toppo.training.sweep.plan import PlannedRun, State, expand, read_sweep, state, states

PAPER = Path(__file__).parents[3] / "figures" / "sweeps"
TOPPO = [sys.executable, "-c", "from toppo.cli import main; main()"]
TINY = """
name = "tiny"
benchmarks = ["reach-v3"]
seeds = [0, 1]
env_steps = {steps}
env_steps_per_epoch = 500
env_steps_per_collect = 500
eval_every_epochs = 100
eval_episodes = 1
repeats = 1
minibatches = 2
dump_minibatches = 1
hidden = [8]
workers = 1
device = "cpu"
[rungs.ln]
preset = "ln"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(text: str, cores: int = 4) -> tuple[PlannedRun, ...]:
    Path("sweep.toml").write_text(text)
    return expand(read_sweep(Path("sweep.toml")), cores)


def toppo_sweep(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TOPPO, "sweep", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


# --- what a file stands for


def test_every_rung_on_every_benchmark_with_every_seed():
    runs = plan(
        'name = "x"\nbenchmarks = ["MT10", "reach-v3, push-v3"]\nseeds = [3, 7]\nrepeats = 8\n'
        '[rungs.full]\npreset = "toppo"\n[rungs.short]\npreset = "vanilla"\nrepeats = 4\npopart = "ema"\n'
    )
    assert [run.name for run in runs] == [
        f"x-{rung}-{benchmark}-s{seed}"
        for seed in (3, 7)
        for benchmark in ("MT10", "reach-v3_push-v3")
        for rung in ("full", "short")
    ]
    full, short = runs[0].config, runs[1].config
    assert full == resolve({"seed": 3, "repeats": 8, "workers": 4}, preset="toppo")
    assert short == resolve({"seed": 3, "repeats": 4, "popart": "ema", "workers": 4}, preset="vanilla")
    assert str(runs[0].path) == "dumps/x-full-MT10-s3"
    few = plan('name = "x"\nbenchmarks = ["reach-v3, push-v3"]\nseeds = [3]\nenvs_per_task = 1\n[rungs.full]\n')
    assert few[0].config.workers == 2  # at most one an environment


@pytest.mark.parametrize(
    ("file", "count", "benchmark", "reward"),
    [
        ("ladder-mt10", 6 * 10, "MT10", "v2"),
        ("ladder-mt50", 6 * 10, "MT50", "v2"),
        ("ladder-mt50-v1", 6 * 10, "MT50", "v1"),
        ("cube-mt50", 2**3 * 10, "MT50", "v2"),
        ("per-side-mt50", 6 * 10, "MT50", "v2"),  # the rows of Table D.2
        ("ln-placement-mt10", 2 * 10, "MT10", "v2"),
        ("dump-runs-mt10", 4, "MT10", "v2"),
    ],
)
def test_the_papers_sweeps(file: str, count: int, benchmark: str, reward: str):
    """Counts and budgets of Section 5 and Table B.1; no two rungs of a sweep are the same."""
    runs = expand(read_sweep(PAPER / f"{file}.toml"), cores=16)
    assert len(runs) == len({run.name for run in runs}) == count
    assert len({run.config for run in runs}) == count
    budget = {"MT10": (20_000_000, 100_000), "MT50": (100_000_000, 500_000)}[benchmark]
    evaluations = 51
    if file == "dump-runs-mt10":  # as long as its figures need
        budget, evaluations = (8_000_000, 100_000), 21
    for run in runs:
        config = run.config
        assert (config.benchmark, config.reward) == (benchmark, reward)
        assert (config.env_steps, config.env_steps_per_collect) == budget
        assert (config.repeats, config.minibatches, len(run.schedule.evaluations)) == (16, 32, evaluations)


def test_the_papers_sweep_files_are_all_tested():
    assert len(list(PAPER.glob("*.toml"))) == 7


def cells(file: str) -> set[tuple[str, str, str, str]]:
    runs = expand(read_sweep(PAPER / f"{file}.toml"), cores=16)
    return {(c.layernorm, c.popart, c.actor_combiner, c.critic_combiner) for c in (run.config for run in runs)}


def test_the_cube_has_all_cells_and_the_dumps_those_of_section_d2():
    fg, pcgrad = "fairgrad:alpha=1", resolve({}).actor_combiner
    assert cells("cube-mt50") == {
        (ln, popart, "mean", critic)
        for ln in ("none", "critic")
        for popart in ("off", "welford")
        for critic in ("mean", fg)
    }
    assert cells("dump-runs-mt10") == {
        (ln, "welford", *combiners)
        for ln in ("none", "critic")
        for combiners in (("mean", "mean"), ("fairgrad:alpha=2", fg))
    }
    assert {run.config.dump_every for run in expand(read_sweep(PAPER / "dump-runs-mt10.toml"), 1)} == {5}
    assert cells("per-side-mt50") == {
        ("critic", "welford", actor, critic)
        for actor, critic in (
            *(("mean", "mean"), ("mean", fg), (pcgrad, fg), ("fairgrad:alpha=2", fg), (pcgrad, pcgrad)),
            ("cagrad:c=0.5", "cagrad:c=0.5"),
        )
    }
    assert cells("ln-placement-mt10") == {(ln, "welford", "mean", "mean") for ln in ("critic", "both")}


def test_rungs_that_two_of_the_papers_sweeps_share_are_the_same_runs():
    """What the ladder has trained, the cube and the per-side study skip."""
    by_name: dict[str, object] = {}
    runs = [run for file in sorted(PAPER.glob("*.toml")) for run in expand(read_sweep(file), cores=16)]
    for run in runs:
        assert by_name.setdefault(run.name, run.config) == run.config
    assert len(runs) - len(by_name) == 10 * (5 + 3 + 1)  # the cube shares five rungs, the per-side three, LN one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[rungs.ln]", "[[rungs"), "sweep.toml is not valid TOML"),
        (('[rungs.ln]\npreset = "ln"\n', ""), "the sweep has no rungs; give [rungs.NAME] tables"),
        (("seeds = [0, 1]", "seeds = []"), "the sweep has no seeds that can be run; give seeds = [0, 1, 2]"),
        (("seeds = [0, 1]", 'seeds = ["a"]'), "the sweep has no seeds"),
        (("seeds = [0, 1]", "seeds = [0, 0]"), "seeds names 0 twice"),
        (("seeds = [0, 1]", "seed = 0"), "a sweep sets seed itself; give seeds = [...]"),
        (("seeds = [0, 1]", "seeds = [-1]"), "--seed -1: must not be negative"),
        (('benchmarks = ["reach-v3"]', ""), 'the sweep has no benchmarks that can be run; give benchmarks = ["MT10"]'),
        (('"reach-v3"', '"MT11"'), "unknown benchmark or task 'MT11': did you mean 'MT10'?"),
        (('name = "tiny"', 'name = "a/b"'), "give name ="),
        (("repeats = 1", "repeat = 1"), "unknown key 'repeat': did you mean 'repeats'?"),
        (('preset = "ln"', 'preset = "topo"'), "[rungs.ln]: unknown preset 'topo': did you mean 'toppo'?"),
        (('preset = "ln"', 'poppart = "off"'), "[rungs.ln]: unknown key 'poppart': did you mean 'popart'?"),
        (('preset = "ln"', "seed = 1"), "[rungs.ln]: a sweep sets seed itself"),
        (('preset = "ln"', 'popart = "of"'), "[rungs.ln] on reach-v3: unknown popart 'of': did you mean 'off'?"),
        (("repeats = 1", 'popart = "ema"'), "[rungs.ln]: both preset 'ln' and the sweep set popart"),
        (('preset = "ln"', 'preset = ["ln"]'), "[rungs.ln]: unknown preset"),
        (("seeds = [0, 1]", "seeds = [4294967296]"), "must be at most 4,294,967,295"),
        (("hidden = [8]", "hidden = " + "[" * 3000 + "]" * 3000), "nested too deep"),
        (('name = "tiny"', "name = " + "[" * 200 + "]" * 200), "give name ="),
        (("repeats = 1", "repeats = 1000000000000"), "must be at most 10,000"),
        (("env_steps_per_collect = 500", "env_steps_per_collect = 300"), "[rungs.ln] on reach-v3: --env-steps-per-col"),
    ],
)
def test_a_wrong_sweep_is_one_line_before_anything_runs(change, message, monkeypatch, capsys):
    Path("sweep.toml").write_text(TINY.format(steps=1000).replace(*change))
    code, out, err = run_cli(cli, ("sweep", "sweep.toml"), monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("dumps").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.toml",), 2, "cannot read none.toml"),
        (("sweep.toml", "--jobs", "0"), 2, "--jobs"),
        (("sweep.toml", "--jobs", "2", "--scheduler", "x.json"), 2, "give one of them"),
        (("sweep.toml", "--scheduler", "x.json"), 2, "x.json: no such scheduler file"),
        (("sweep.toml", "--scheduler", "dir://x"), 2, "no address of a dask scheduler; it begins with tcp://"),
        (("sweep.toml", "--scheduler", "sweep.toml"), 2, "is not the scheduler file of a dask scheduler"),
        pytest.param(  # dask waits ten seconds for an answer
            ("sweep.toml", "--scheduler", "tcp://127.0.0.1:9"), 1, "no dask scheduler answers", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wrong_option_is_one_line(arguments, code, message, monkeypatch, capsys):
    Path("sweep.toml").write_text(TINY.format(steps=1000))
    got, out, err = run_cli(cli, ("sweep", *arguments), monkeypatch, capsys)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err


def test_a_dry_run_lists_the_runs(monkeypatch, capsys):
    Path("sweep.toml").write_text(TINY.format(steps=1000))
    code, out, _ = run_cli(cli, ("sweep", "sweep.toml", "--dry-run", "--json"), monkeypatch, capsys)
    assert code == 0
    assert [(r["run"], r["state"], r["config"]["seed"]) for r in json.loads(out)] == [
        ("dumps/tiny-ln-reach-v3-s0", "new", 0),
        ("dumps/tiny-ln-reach-v3-s1", "new", 1),
    ]
    for run in json.loads(out):
        least, most = run["hours"]
        assert 0 < least < most < 1
        assert 0 < run["disk_bytes"] < 10**6
    code, out, _ = run_cli(cli, ("sweep", "sweep.toml", "--dry-run"), monkeypatch, capsys)
    assert out.count("dumps/tiny-ln-reach-v3-s") == 2
    times = r"\d\S* (s|min) to \d\S* (s|min)"
    assert len(re.findall(times, out)) == 2 + 1  # each run, and all
    assert re.match(
        rf"2 runs to train, 1 at a time: about {times} on this machine, and 0\.00 GB of disk", out.splitlines()[-1]
    )
    assert not Path("dumps").exists()


# --- what is on disk


def test_another_configuration_is_refused_with_the_keys_that_differ():
    runs = plan(TINY.format(steps=1000))
    for run in plan(TINY.format(steps=1000).replace("repeats = 1", "repeats = 3\ngamma = 0.5")):
        Run.create(run.name, run.config)
    with pytest.raises(UsageError) as refused:
        states(runs, Path.cwd())
    assert "tiny-ln-reach-v3-s0" in str(refused.value)
    assert "repeats = 3, sweep 1" in str(refused.value)
    assert "gamma = 0.5, sweep 0.99" in str(refused.value)
    assert "1 more" in str(refused.value)


def test_device_and_workers_of_an_existing_run_may_differ():
    """They are how a run is computed: another --jobs, or another machine, goes on with it."""
    text = TINY.format(steps=1000).replace('workers = 1\ndevice = "cpu"', "envs_per_task = 1")
    (run, _) = plan(text, cores=8)
    Run.create(run.name, resolve({**run.config.to_dict(), "workers": 3, "device": "cuda", "hidden": (8,)}))
    assert state(run, Path.cwd()) is State.CUT_OFF


def test_a_directory_without_a_run_is_in_the_way():
    runs = plan(TINY.format(steps=1000))
    (Path.cwd() / runs[1].path).mkdir(parents=True)
    with pytest.raises(UsageError, match="s1 exists and holds no run"):
        states(runs, Path.cwd())


# --- what happens to one run, its process played by the test


def played(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str]) -> list[PlannedRun]:
    """Let the processes of runs end with these codes and words, one after the other."""
    left, seen = list(answers), []

    def train(run: PlannedRun, root: Path, environment: object, stopped: Callable[[], bool]) -> tuple[int, str]:
        seen.append(run)
        return left.pop(0)

    monkeypatch.setattr(sweep_jobs, "_train", train)
    return seen


DIED = (sweep_jobs.DIED, "the worker process of reach-v3 died")


@pytest.mark.parametrize(
    ("answers", "status", "note"),
    [
        ([(0, "")], "finished", ""),
        ([DIED, (0, "")], "finished", "attempt 2: the worker process of reach-v3 died"),
        ([(-9, ""), (0, "")], "finished", "attempt 2: its process was ended by SIGKILL"),
        ([(-9, ""), DIED, (0, "")], "finished", "attempt 3: the worker process of reach-v3 died"),
        ([(-40, ""), (0, "")], "finished", "attempt 2: its process was ended by signal 40"),
        (
            [(sweep_jobs.DIED, ""), (0, "")],
            "finished",
            "attempt 2: exit code 75; see dumps/tiny-ln-reach-v3-s0/sweep.log",
        ),
        ([(-9, "")] * 3, "failed", "its process was ended by SIGKILL; tried 3 times"),
        ([(1, "the disk is full; make room")], "failed", "the disk is full; make room"),
        ([(1, "")], "failed", "exit code 1; see dumps/tiny-ln-reach-v3-s0/sweep.log"),
    ],
)
def test_only_what_died_is_tried_again(monkeypatch, answers, status, note):
    seen = played(monkeypatch, *answers)
    outcome = sweep_jobs.perform(plan(TINY.format(steps=1000))[0], Path.cwd(), {}, lambda: False)
    assert (outcome.status, outcome.note) == (status, note)
    assert len(seen) == len(answers)


def test_what_was_begun_is_resumed_and_what_a_stop_finds_is_left(monkeypatch):
    first, second = plan(TINY.format(steps=1000))
    Run.create(first.name, first.config)
    played(monkeypatch, (0, ""))
    assert sweep_jobs.perform(first, Path.cwd(), {}, lambda: False).status == "resumed"
    played(monkeypatch)  # no process is started
    assert sweep_jobs.perform(first, Path.cwd(), {}, lambda: True).status == "stopped"
    assert sweep_jobs.perform(second, Path.cwd(), {}, lambda: True).status == "not started"
    answers = iter([False, True])
    played(monkeypatch, (-15, ""))
    assert sweep_jobs.perform(first, Path.cwd(), {}, lambda: next(answers)).status == "stopped"


def test_one_failure_stops_no_other_run_and_is_the_exit_code(monkeypatch, capsys):
    played(monkeypatch, (1, "no luck"), (0, ""))
    Path("sweep.toml").write_text(TINY.format(steps=1000))
    code, out, err = run_cli(cli, ("sweep", "sweep.toml", "--json"), monkeypatch, capsys)
    assert code == 1
    assert [(o["status"], o["note"]) for o in json.loads(out)] == [("failed", "no luck"), ("finished", "")]
    last = "error: 1 of 2 runs failed, the first is dumps/tiny-ln-reach-v3-s0 (no luck)"
    assert err.splitlines()[-1].startswith(last)


def test_jobs_share_the_cores(monkeypatch):
    monkeypatch.setattr(sweep_jobs, "usable_cores", lambda: 16)
    assert [sweep_jobs.cores_of_a_job(jobs) for jobs in (1, 3, 16, 40)] == [16, 5, 1, 1]


def test_threads_are_a_jobs_share_unless_the_shell_says_otherwise(monkeypatch):
    monkeypatch.setattr(sweep_jobs, "usable_cores", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    given = []

    def train(run: PlannedRun, root: Path, environment: dict[str, str], stopped: object) -> tuple[int, str]:
        given.append((environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]))
        return 0, ""

    monkeypatch.setattr(sweep_jobs, "_train", train)
    sweep_jobs.run_all(plan(TINY.format(steps=1000)), 2, None, lambda outcome: None, lambda: None)
    assert given == [("3", "8")] * 2


# --- whole sweeps of real runs


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a tiny sweep went to its end."""
    cwd = tmp_path_factory.mktemp("swept")
    (cwd / "sweep.toml").write_text(TINY.format(steps=500))
    done = toppo_sweep(cwd, "sweep.toml", "--jobs", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert [(o["status"], o["env_steps"]) for o in json.loads(done.stdout)] == [("finished", 500)] * 2
    return cwd


def test_a_sweep_again_skips_all_and_changes_nothing(swept: Path, monkeypatch, capsys):
    monkeypatch.chdir(swept)
    before = {p: p.read_bytes() for p in swept.rglob("*") if p.is_file()}
    code, out, _ = run_cli(cli, ("sweep", "sweep.toml", "--jobs", "2", "--json"), monkeypatch, capsys)
    assert code == 0
    outcomes = json.loads(out)
    assert [(o["status"], o["env_steps"]) for o in outcomes] == [("skipped", 500)] * 2
    for o in outcomes:
        last = json.loads((swept / o["run"] / "evaluation.jsonl").read_text().splitlines()[-1])
        assert o["mean_success"] == last["mean_success"]
    assert before == {p: p.read_bytes() for p in swept.rglob("*") if p.is_file()}


def test_a_run_of_a_sweep_is_one_of_toppo_train(swept: Path):
    """The same directory, but for the device, which a sweep leaves open, and the sweep's log."""
    run = Run(swept / "dumps/tiny-ln-reach-v3-s1")
    assert run.config == expand(read_sweep(swept / "sweep.toml"), cores=1)[1].config
    assert {p.name for p in run.path.iterdir()} == {
        *("config.toml", "dump.zarr", "progress.jsonl", "timings.jsonl", "evaluation.jsonl", "checkpoint", "sweep.log")
    }
    assert "evaluation at 500 steps" in (run.path / "sweep.log").read_text()


LONG = TINY.format(steps=3000)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dumps/ of a longer sweep whose runs `toppo train` made, one after the other."""
    cwd = tmp_path_factory.mktemp("undisturbed")
    (cwd / "sweep.toml").write_text(LONG)
    for run in expand(read_sweep(cwd / "sweep.toml"), cores=1):
        (cwd / "run.toml").write_text(run.config.to_toml())
        command = [*TOPPO, "train", "--config", "run.toml", "--name", run.name]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    return cwd / "dumps"


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def collects(run: str) -> int:
    log = Path("dumps") / run / "progress.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def trainers(run: str) -> list[int]:
    """Processes that train a run of this sweep."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
            if "sweep.jobs" in command and f'"{run}"' in command and (entry / "cwd").resolve() == Path.cwd():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def begin(*arguments: str) -> subprocess.Popen[str]:
    Path("sweep.toml").write_text(LONG)
    command = [*TOPPO, "sweep", "sweep.toml", "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def local_cluster(workers: int):
    """A dask scheduler over tcp and worker processes under nannies."""
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, protocol="tcp", dashboard_address=None, processes=True
    )


def assert_undisturbed(undisturbed: Path) -> None:
    for run in ("tiny-ln-reach-v3-s0", "tiny-ln-reach-v3-s1"):
        assert_same_run(undisturbed / run, Path("dumps") / run)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_stops_its_runs_and_goes_on(undisturbed, how):
    process = begin("--jobs", "1")
    until(lambda: collects("tiny-ln-reach-v3-s0") >= 2, process)
    process.send_signal(how)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + how
    assert not trainers("tiny-ln-reach-v3-s0")
    assert [o["status"] for o in json.loads(out)] == ["stopped", "not started"]
    assert err.splitlines()[-1] == f"error: stopped by {how.name}; go on with the same command"
    done = toppo_sweep(Path.cwd(), "sweep.toml", "--jobs", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert [o["status"] for o in json.loads(done.stdout)] == ["resumed", "finished"]
    assert_undisturbed(undisturbed)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_tried_again(undisturbed):
    process = begin("--jobs", "2")
    until(lambda: collects("tiny-ln-reach-v3-s1") >= 2, process)
    for pid in trainers("tiny-ln-reach-v3-s1"):
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [(o["status"], o["note"]) for o in json.loads(out)] == [
        ("finished", ""),
        ("finished", "attempt 2: its process was ended by SIGKILL"),
    ]
    assert_undisturbed(undisturbed)


@pytest.mark.slow
def test_runs_end_with_a_sweep_that_is_killed(undisturbed):
    process = begin("--jobs", "2")
    until(lambda: collects("tiny-ln-reach-v3-s0") >= 1, process)
    process.kill()
    process.communicate(timeout=300)
    until(lambda: not trainers("tiny-ln-reach-v3-s0") and not trainers("tiny-ln-reach-v3-s1"))
    assert toppo_sweep(Path.cwd(), "sweep.toml", "--jobs", "2").returncode == 0
    assert_undisturbed(undisturbed)


@pytest.mark.slow
def test_a_killed_dask_worker_costs_nothing(undisturbed):
    with local_cluster(2) as cluster:
        process = begin("--scheduler", cluster.scheduler_address)
        until(lambda: collects("tiny-ln-reach-v3-s0") >= 2, process)
        (trainer,) = trainers("tiny-ln-reach-v3-s0")
        worker = int(Path(f"/proc/{trainer}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert worker in {nanny.pid for nanny in cluster.workers.values()}
        os.kill(worker, signal.SIGKILL)
        until(lambda: trainer not in trainers("tiny-ln-reach-v3-s0"))  # it died with its worker
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        # The second attempt of seed 0 finds the run begun by the first.
        assert [o["status"] for o in json.loads(out)] == ["resumed", "finished"]
    assert_undisturbed(undisturbed)


@pytest.mark.slow
def test_a_sweep_on_a_cluster_stops_its_runs(undisturbed):
    with local_cluster(1) as cluster:
        process = begin("--scheduler", cluster.scheduler_address)
        until(lambda: collects("tiny-ln-reach-v3-s0") >= 1, process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err.count("error: ")) == (143, 1)
        assert [o["status"] for o in json.loads(out)] == ["stopped", "not started"]
        assert not trainers("tiny-ln-reach-v3-s0")
    assert toppo_sweep(Path.cwd(), "sweep.toml", "--jobs", "2").returncode == 0
    assert_undisturbed(undisturbed)


def test_the_presets_are_the_papers_ladder():
    """Figure 4's rungs and Table D.5's, in the ladder's sweep by name."""
    rungs = {run.rung for run in expand(read_sweep(PAPER / "ladder-mt50.toml"), 1)}
    assert rungs == PRESETS.keys()

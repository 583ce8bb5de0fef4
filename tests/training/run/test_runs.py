"""Whole runs through the command line: real Meta-World, real processes, real kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from toppo.dump import open_dump, verify
from toppo.training.run.checkpoint import load_latest

TOPPO = [sys.executable, "-c", "from toppo.cli import main; main()"]
DIAG = [sys.executable, "-c", "from toppo_diag.cli import main; main()"]
SMALL = [
    *("--benchmark", "drawer-close-v3,reach-v3", "--env-steps", "4000", "--env-steps-per-epoch", "1000"),
    *("--env-steps-per-collect", "1000", "--eval-every-epochs", "2", "--eval-episodes", "2", "--repeats", "2"),
    *("--minibatches", "4", "--dump-every", "2", "--dump-minibatches", "2", "--workers", "1", "--device", "cpu"),
]
COLLECTS = 4


def toppo(cwd: Path, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOPPO, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def assert_same_run(left: Path, right: Path, attrs: bool = True, digests: bool = True) -> None:
    """Bit for bit: configuration, logs, checkpoint, dump.

    With `attrs` also the dump's attributes, which name the code's revision; with `digests` also those in the logs. The
    left run may have arrays that the right one, of earlier code, does not have.
    """
    for name in ("config.toml", "progress.jsonl", "evaluation.jsonl"):
        texts = [(run / name).read_text() for run in (left, right)]
        if not digests:
            texts = [re.sub(r', "digest": "[0-9a-f]{16}"}$', "}", text, flags=re.MULTILINE) for text in texts]
        assert texts[0] == texts[1], name
    a, b = load_latest(left / "checkpoint", print), load_latest(right / "checkpoint", print)
    assert a is not None
    assert b is not None
    assert a.collect == b.collect
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)
    da, db = open_dump(left), open_dump(right)
    assert (da.complete, da.n_snapshots) == (db.complete, db.n_snapshots)
    assert set(da.names) >= set(db.names)
    assert not attrs or da.attrs == db.attrs
    for name in db.names:
        np.testing.assert_array_equal(da.values(name), db.values(name), err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    cwd = tmp_path_factory.mktemp("whole")
    done = toppo(cwd, "train", "--name", "whole", *SMALL)
    assert done.returncode == 0, done.stderr
    return cwd / "dumps" / "whole"


def stopped_run(cwd: Path, how: int, after: int | str) -> subprocess.Popen[str]:
    """A run whose whole process group, as by a terminal or a job scheduler, is sent a signal.

    Args:
        cwd: where its dumps/cut lands.
        how: the signal; 0 only waits.
        after: so many lines of the progress log, or once this file of the run is there.
    """
    process = subprocess.Popen(
        [*TOPPO, "train", "--name", "cut", *SMALL],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = cwd / "dumps" / "cut"
    deadline = time.monotonic() + 900  # a guard against a hang, far off for a busy machine
    while not _reached(run, after):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, how)
    return process


def _reached(run: Path, after: int | str) -> bool:
    if isinstance(after, str):
        return (run / after).exists()
    log = run / "progress.jsonl"
    return log.exists() and log.read_text().count("\n") >= after


@pytest.mark.parametrize(
    ("how", "after"),
    [
        (signal.SIGKILL, 2),
        (signal.SIGINT, 1),
        (signal.SIGKILL, "config.toml"),  # before there is a dump or a checkpoint
        pytest.param(signal.SIGTERM, 3, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "config.toml", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "dump.zarr", marks=pytest.mark.slow),  # in the first evaluation
        pytest.param(signal.SIGKILL, "checkpoint/collect-000002.npz", marks=pytest.mark.slow),  # in the second
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(whole, tmp_path, how, after):
    process = stopped_run(tmp_path, how, after)
    _, stderr = process.communicate(timeout=300)
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + how
        stopped = f"error: stopped by {signal.Signals(how).name}; go on with `toppo resume dumps/cut`"
        assert stderr.strip().splitlines() == [stopped]
    log = tmp_path / "dumps/cut/progress.jsonl"
    assert not log.exists() or len(log.read_text().splitlines()) < COLLECTS
    resumed = toppo(tmp_path, "resume", "dumps/cut")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(whole, tmp_path / "dumps" / "cut")


def test_no_worker_outlives_a_killed_trainer(tmp_path):
    process = stopped_run(tmp_path, 0, 1)
    children = [int(pid) for pid in _children_of(process.pid)]
    process.kill()
    process.communicate(timeout=300)
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "workers still alive"
        time.sleep(0.1)


def _children_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_finished_run_has_everything(whole):
    progress = [json.loads(line) for line in (whole / "progress.jsonl").read_text().splitlines()]
    assert [line["collect"] for line in progress] == list(range(1, COLLECTS + 1))
    assert progress[-1]["env_steps"] == 4000
    assert all(line["worst_norm_deviation_of_live_tasks"] < 1e-4 for line in progress)
    evaluations = [json.loads(line) for line in (whole / "evaluation.jsonl").read_text().splitlines()]
    assert [line["collect"] for line in evaluations] == [0, 2, 4]
    assert set(evaluations[0]["tasks"]) == {"drawer-close-v3", "reach-v3"}
    assert set(evaluations[0]["tasks"]["reach-v3"]) == {"success", "return"}
    assert len(list((whole / "checkpoint").iterdir())) == 2
    dump = open_dump(whole)
    assert dump.complete
    assert dump.n_snapshots == 2
    assert list(dump.steps) == [2000, 4000]
    assert dump.gram_stream("critic").shape == (COLLECTS, 2, 2, 2)
    assert dump.attrs["gradient_scale"] == {"actor": 1.0, "critic": 0.001}


def test_dumped_grams_are_those_of_the_dumped_slabs(whole):
    dump = open_dump(whole)
    for side in ("actor", "critic"):
        for snapshot, minibatch, slab in dump.iter_slabs(side):
            exact = slab.values.astype(np.float64) @ slab.values.astype(np.float64).T
            gram = dump.gram(side).values[snapshot, minibatch]
            norms = np.sqrt(np.diag(exact))
            assert (np.abs(gram - exact) / np.outer(norms, norms)).max() < 1e-6  # fp32 products, fp64 sums
            assert (norms > 0).all()
            layers = dump.layer_gram_values(side, snapshot, minibatch)
            assert (np.abs(layers.sum(axis=0) - exact) / np.outer(norms, norms)).max() < 1e-6
    assert dump.source.header.layout.layer_grams
    assert verify(dump).ok  # each layer against its columns too


def test_dumped_weights_replay_exactly(whole):
    """The combiner that trained, on the dumped Gram and order, gives the dumped weights to the last bit."""
    from toppo.combiners import make

    dump = open_dump(whole)
    for side in ("actor", "critic"):
        combiner = make(dump.attrs["combiners"][side])
        scale = dump.attrs["gradient_scale"][side] ** 2
        for s in range(dump.n_snapshots):
            for m in range(dump.n_minibatches):
                order = dump.values(f"{side}_order")[s, m] if combiner.needs_order else None
                weights = combiner.combine(dump.values(f"{side}_gram")[s, m] * scale, order=order).weights
                np.testing.assert_array_equal(weights, dump.values(f"{side}_weights")[s, m])


def test_evaluate_repeats_the_runs_own_evaluation(whole):
    done = toppo(whole.parents[1], "evaluate", "dumps/whole", "--json", "--episodes", "2")
    assert done.returncode == 0, done.stderr
    own = json.loads((whole / "evaluation.jsonl").read_text().splitlines()[-1])
    assert own.pop("digest")
    assert json.loads(done.stdout) == own


def test_heatmaps_of_a_run(whole, tmp_path):
    for side in ("critic", "actor"):
        done = subprocess.run(
            [*DIAG, "heatmaps", str(whole), "--side", side, "--out", str(tmp_path), "--json"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert {Path(p).suffix for p in made["files"]} == {".pdf", ".png", ".csv"}
        assert all(Path(p).stat().st_size > 100 for p in made["files"])


def test_conditions_of_runs_trained_with_and_without_popart(whole, tmp_path):
    """A run without PopArt is one column of Figure D.1; one with PopArt two, its raw counterpart by sigma^2."""
    from toppo_diag.reading.conditions import critic_conditions

    done = toppo(tmp_path, "train", "--name", "raw", *SMALL, "--popart", "off")
    assert done.returncode == 0, done.stderr
    without, normalised = open_dump(tmp_path / "dumps/raw"), open_dump(whole)
    assert [c.label for c in critic_conditions([without])] == ["+LN"]
    assert (without.values("popart_sigma") == 1).all()
    assert (normalised.values("popart_sigma") != 1).all()
    inverted, as_trained = critic_conditions([normalised])
    assert (inverted.label, as_trained.label) == ("+LN", "+PopArt+LN")
    figure = subprocess.run(
        [*DIAG, "heatmaps", str(tmp_path / "dumps/raw"), str(whole), "--out", str(tmp_path / "out"), "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert figure.returncode == 0, figure.stderr
    cosine = {(n["stage"], n["condition"]): n["mean_abs_cosine"] for n in json.loads(figure.stdout)["numbers"]}
    for stage in ("early", "late"):  # sigma^2 moves no angle
        pair = [v for (s, label), v in cosine.items() if s == stage and "raw" not in label]
        assert len(pair) == 2
        assert abs(pair[0] - pair[1]) < 1e-12


def test_resuming_a_run_that_is_still_going_is_refused_and_harms_nothing(whole, tmp_path):
    process = stopped_run(tmp_path, signal.SIGSTOP, 1)  # held, lest it ends before the second one looks
    second = toppo(tmp_path, "resume", "dumps/cut")
    os.killpg(process.pid, signal.SIGCONT)
    assert second.returncode == 1, second.stdout
    assert second.stderr.count("\n") == 1
    assert process.wait(timeout=600) == 0
    assert_same_run(whole, tmp_path / "dumps" / "cut")


def test_resuming_a_finished_run_changes_nothing(whole):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.name != "timings.jsonl"}
    done = toppo(whole.parents[1], "resume", "dumps/whole")
    assert done.returncode == 0, done.stderr
    assert "dumps/whole is finished: nothing is left to train" in done.stdout
    assert before == {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.name != "timings.jsonl"}


def test_a_finished_run_is_recognised_without_torch(whole):
    """So that the answer comes at once."""
    code = (
        "import sys\n"
        "for name in ('torch', 'metaworld'): sys.modules[name] = None\n"
        "import toppo\n"
        "print(toppo.resume(sys.argv[1]).collects)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, whole], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["4"]


def test_evaluate_plays_all_goals(whole, monkeypatch):
    """50 by default, though the run's own evaluations play 2."""
    import inspect

    import toppo as front_door

    assert inspect.signature(front_door.evaluate).parameters["episodes"].default == 50
    for wrong in (0, 51, 2.0):
        with pytest.raises(front_door.UsageError, match=f"`episodes={wrong}`: must be a whole number from 1 to 50"):
            front_door.evaluate(whole, episodes=wrong)
    table = front_door.evaluate(whole, episodes=3, progress=False)
    assert set((table["success"] * 3).round(9)) <= {0, 1, 2, 3}
    own = front_door.Run(whole).evaluations.query("collect == 4").set_index("task")
    assert (table["return"] != own["return"]).any()


def test_a_run_directory_that_exists_is_refused(whole):
    done = toppo(whole.parents[1], "train", "--name", "whole", *SMALL)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error: dumps/whole exists: give another --name, or go on with it by `toppo resume dumps/whole`\n"
    )


def test_a_worker_killed_mid_run_is_named_and_the_run_resumes(whole, tmp_path):
    process = stopped_run(tmp_path, 0, 1)  # signal 0: only waits
    os.kill(max(int(pid) for pid in _children_of(process.pid)), signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "died (exit code -9) while stepping" in stderr
    assert "toppo resume dumps/cut" in stderr
    assert toppo(tmp_path, "resume", "dumps/cut").returncode == 0
    assert_same_run(whole, tmp_path / "dumps" / "cut")


def test_what_is_gone_is_said_and_nothing_is_overwritten(whole, tmp_path):
    """Neither lost checkpoints nor a lost dump make a resume start over in silence."""
    import shutil

    for gone in ("checkpoint", "dump.zarr"):
        copy = tmp_path / "dumps" / gone.partition(".")[0]
        shutil.copytree(whole, copy)
        shutil.rmtree(copy / gone)
        before = (copy / "progress.jsonl").read_bytes()
        done = toppo(tmp_path, "resume", str(copy))
        assert done.returncode == 1
        assert gone in done.stderr
        assert "; go on with" not in done.stderr or gone == "dump.zarr"  # the next attempt would end in the same way
        assert done.stderr.count("\n") == 1
        assert (copy / "progress.jsonl").read_bytes() == before

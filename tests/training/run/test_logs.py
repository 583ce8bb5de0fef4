"""The logs of a run: what was changed, removed or moved in them is noticed, and is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import toppo
import toppo_diag
from toppo.common.errors import ToppoError
from toppo.common.jsonl import parse
from toppo.dump import DumpError, verify
from toppo.training.run.directory import Run

SMALL = {
    **{"benchmark": "reach-v3", "env_steps": 1500, "env_steps_per_epoch": 500, "env_steps_per_collect": 500},
    **{"eval_every_epochs": 2, "eval_episodes": 1, "repeats": 1, "minibatches": 2, "dump_minibatches": 1},
    **{"hidden": (8,), "workers": 1, "device": "cpu", "dump_every": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three collects, trained to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("finished"))
        return toppo.train(name="one", progress=False, **SMALL).path.absolute()


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A copy of it, for a test to damage."""
    return Run(shutil.copytree(finished, tmp_path / "one"))


def written(tmp_path: Path, lines: int, digests: bool = True) -> Run:
    """A run's logs alone."""
    run = Run(tmp_path)
    for n in range(1, lines + 1):
        line = {"collect": n, "env_steps": 500 * n, "mean_success": 0.25, "tasks": {"reach-v3": {"success": 0.25}}}
        if digests:
            run.append(run.progress_log, line)
        else:
            with run.progress_log.open("a") as log:
                log.write(json.dumps(line) + "\n")
    return run


NOT_A_LINE = ["{}", "3", "null", "[]", '"x"', "[" * 10_000, '{"a":' * 10_000, "", "9" * 5000, "\xff", '{"collect": 1']
NOT_OF_A_LOG = [
    '{"collect": "1", "env_steps": 500, "mean_success": 0.5, "tasks": {}}',
    '{"collect": true, "env_steps": 500, "mean_success": 0.5, "tasks": {}}',
    '{"collect": 1, "env_steps": Infinity, "mean_success": 0.5, "tasks": {}}',
    '{"collect": 1, "env_steps": -500, "mean_success": 0.5, "tasks": {}}',
    '{"collect": 1, "env_steps": 500, "mean_success": null, "tasks": {}}',
    '{"collect": 1, "env_steps": 500, "mean_success": 0.5, "tasks": []}',
    '{"collect": 1, "env_steps": 500, "mean_success": 0.5, "tasks": {"reach-v3": 1}}',
    '{"collect": 1, "env_steps": 500, "mean_success": 0.5, "tasks": {"reach-v3": {"success": "x"}}}',
    '{"collect": 1, "env_steps": 500, "tasks": {}}',
]


@pytest.mark.parametrize("line", NOT_A_LINE + NOT_OF_A_LOG)
@pytest.mark.parametrize("name", ["progress.jsonl", "evaluation.jsonl"])
def test_a_line_that_is_none_is_named(tmp_path: Path, name: str, line: str):
    (tmp_path / name).write_text(line + "\n", encoding="latin-1")
    run = Run(tmp_path)
    with pytest.raises(ToppoError, match=rf"{name}, line 1 is damaged: restore") as refused:
        run.read(tmp_path / name)
    assert "\n" not in str(refused.value)
    with pytest.raises(ToppoError):
        run.append(tmp_path / name, {})


def test_any_flip_of_a_bit_is_noticed(tmp_path: Path):
    run = written(tmp_path, 3)
    whole, lines = run.progress_log.read_bytes(), run.read(run.progress_log)
    assert [line["collect"] for line in lines] == [1, 2, 3]
    assert "digest" not in lines[0]
    silent = []
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            try:
                silent += [position] * (list(parse(bytes(damaged), "log").lines) != lines)
            except ToppoError:
                continue
    assert not silent


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[2], lines[3]],
        lambda lines: lines[1:],
        lambda lines: lines[::-1],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [lines[0], *lines],
        lambda lines: [*lines[:2], lines[2].replace(b"0.25", b"0.75"), lines[3]],
    ],
)
@pytest.mark.parametrize("digests", [True, False])
def test_lines_that_were_moved_or_changed_are_noticed(tmp_path: Path, change: Callable, digests: bool):
    run = written(tmp_path, 4, digests)
    lines = run.progress_log.read_bytes().splitlines(keepends=True)
    damaged = b"".join(change(lines))
    run.progress_log.write_bytes(damaged)
    if not digests and damaged.count(b"\n") < 4:  # what a log without digests cannot tell, a checkpoint can
        with pytest.raises(ToppoError, match="the checkpoint of collect 4 remembers"):
            run.require_logs(4, {})
    elif digests or b"0.75" not in damaged:
        with pytest.raises(ToppoError, match=r"line \d (is damaged|does not follow)"):
            run.read(run.progress_log)


def test_half_a_line_is_left_out_and_cut(tmp_path: Path):
    run = written(tmp_path, 2)
    whole = run.progress_log.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        assert [line["collect"] for line in parse(whole[:cut], "log").lines] == [1]
    run.progress_log.write_bytes(whole[:-20])
    run.rewind(2)
    run.append(run.progress_log, json.loads(whole.splitlines()[1].rpartition(b", ")[0] + b"}"))
    assert run.progress_log.read_bytes() == whole


def test_a_log_begun_without_digests_goes_on_without(tmp_path: Path):
    run = written(tmp_path, 2, digests=False)
    run.append(run.progress_log, {"collect": 3, "env_steps": 1500, "mean_success": 0.5, "tasks": {}})
    assert b"digest" not in run.progress_log.read_bytes()
    assert run.collects == 3


def test_a_pipe_in_place_of_a_log_is_not_waited_for(tmp_path: Path):
    import os

    os.mkfifo(tmp_path / "progress.jsonl")
    with pytest.raises(ToppoError, match=r"progress\.jsonl is not a regular file"):
        Run(tmp_path).read(tmp_path / "progress.jsonl")


# --- what `resume` notices


def gone(name: str) -> Callable[[Run], object]:
    return lambda run: (run.path / name).unlink()


def last_line_gone(name: str) -> Callable[[Run], object]:
    def remove(run: Run) -> None:
        log = run.path / name
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))

    return remove


def edited(name: str, old: str, new: str) -> Callable[[Run], object]:
    def edit(run: Run) -> None:
        text = (run.path / name).read_text()
        assert old in text
        (run.path / name).write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gone("progress.jsonl"), "progress.jsonl is gone, and the checkpoint of collect 3 remembers 3"),
        (gone("evaluation.jsonl"), "evaluation.jsonl is gone, and the checkpoint of collect 3 remembers 3"),
        (last_line_gone("progress.jsonl"), "progress.jsonl has 2 lines"),
        (last_line_gone("evaluation.jsonl"), "evaluation.jsonl has 2 lines"),
        (edited("progress.jsonl", '"collect": 2', '"collect": 7'), "progress.jsonl, line 2 does not follow"),
        (edited("evaluation.jsonl", '"success": 0.0', '"success": 1.0'), "evaluation.jsonl, line 1 does not follow"),
        (edited("config.toml", "clip = 0.2", "clip = 0.3"), "clip = 0.3, "),
        (edited("config.toml", "minibatches = 2", "minibatches = 4"), "minibatches = 4, "),
    ],
)
def test_resume_of_a_finished_run_notices(run: Run, damage: Callable[[Run], object], message: str):
    damage(run)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(ToppoError) as refused:
        toppo.resume(run, progress=False)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_changed_configuration_is_noticed_by_the_dump_too(run: Run):
    edited("config.toml", "clip = 0.2", "clip = 0.3")(run)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ToppoError, match=r"dump.zarr holds a dump of another configuration \(clip = 0.3, dump 0.2\)"):
        toppo.resume(run, progress=False)


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("clip = 0.2", "clip = 0.3", "clip is 0.3, in the dump 0.2"),
        ("repeats = 1", "repeat = 1", "repeats is missing, in the dump 1"),
        ("seed = 0", "seed = ", "it is no TOML"),
    ],
)
def test_a_changed_configuration_is_noticed_by_the_toolkit(run: Run, old: str, new: str, what: str, archive: bool):
    sound = toppo_diag.export(run.path, run.path / "sound.h5")
    assert verify(run.path).ok
    assert verify(sound).ok
    edited("config.toml", old, new)(run)
    path = toppo_diag.export(run.path, run.path / "changed.h5") if archive else run.path
    assert [str(damage) for damage in verify(path).damages if what in damage.what]
    for command in (toppo_diag.tables, toppo_diag.curves):
        with pytest.raises(ToppoError, match=r"config\.toml (was changed|is damaged)") as refused:
            command(path)
        assert "no TOML" in what or what in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_run_goes_on_on_another_device(run: Run):
    edited("config.toml", 'device = "cpu"', 'device = "cuda"')(run)
    assert verify(run.path).ok


def test_verify_reads_the_logs(run: Run):
    edited("progress.jsonl", '"collect": 2', '"collect": 3')(run)
    (damage,) = verify(run.path).damages
    assert str(damage).startswith("progress.jsonl: line 2 ")


@pytest.mark.parametrize("command", ["info", "verify", "heatmaps", "norms", "export", "replay"])
def test_a_run_that_stopped_before_its_dump_was_built(run: Run, command: str):
    (run.dump_store / "zarr.json").unlink()
    more = (run.path / "x.h5",) if command == "export" else ()
    with pytest.raises(DumpError) as refused:
        getattr(toppo_diag, command)(run.path, *more)
    assert str(refused.value) == f"{run.path}: nothing is recorded yet; `toppo resume {run.path}` starts the run"


# --- one process at a time


def test_two_resumes_of_a_run_without_a_dump(run: Run):
    """Once they killed each other: each removed the store that the other one was building."""
    for path in (run.dump_store, run.checkpoints):
        shutil.rmtree(path)
    run.checkpoints.mkdir()
    for log in (run.progress_log, run.timings_log, run.evaluation_log):
        log.unlink()
    code = "import sys; from toppo.cli import main; sys.argv[1:] = ['resume', sys.argv[1]]; main()"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, run.path], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    codes = sorted(process.returncode for process in both)
    # The second one waits for nothing: it is refused, or it started late and finds the run finished.
    assert codes in ([0, 0], [0, 1]), said
    for (_, err), process in zip(said, both, strict=True):
        assert process.returncode == 0 or "another process is training it" in err
    assert (run.collects, run.dump.complete) == (3, True)


def test_a_run_that_is_locked_is_refused_before_anything_is_touched(run: Run):
    shutil.rmtree(run.dump_store)
    building = run.path / "dump.zarr.creating"
    building.mkdir()
    for log in (run.progress_log, run.timings_log, run.evaluation_log):
        log.unlink()
    shutil.rmtree(run.checkpoints)
    run.checkpoints.mkdir()
    held = run.lock()
    with pytest.raises(ToppoError, match="another process is training it; wait for it or stop it"):
        toppo.resume(run.path, progress=False)
    assert building.is_dir()
    assert not run.progress_log.exists()
    held.release()
    assert toppo.resume(run.path, progress=False).collects == 3
    assert not (run.path / ".lock").exists()


def test_a_resumed_run_has_the_digests_of_one_that_never_stopped(finished: Path, run: Run):
    """Back to the checkpoint of collect 2, and on to the end."""
    (run.checkpoints / "collect-000003.npz").unlink()
    resumed = toppo.resume(run, progress=False)
    for name in ("progress.jsonl", "evaluation.jsonl"):
        assert (resumed.path / name).read_bytes() == (finished / name).read_bytes()
    np.testing.assert_array_equal(resumed.dump.values("success"), toppo.open_dump(finished).values("success"))

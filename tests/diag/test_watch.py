"""A live run, as seen from outside."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.diag import runs
from tests.diag.evaluated import evaluate, flat
from tests.diag.test_cli import diag  # noqa: F401  (a fixture)
from toppo.combiners.geometry import gradient_norms
from toppo.dump import DumpWriter, ScalarSpec, gram, open_dump
from toppo_diag.reading.live import look


def test_a_run_in_progress(tmp_path: Path):
    path = runs.record(tmp_path / "live", snapshots=3, complete=False)
    view = look(str(path))
    assert not view.complete
    assert view.steps == view.planned_steps == 1_500_000
    assert view.snapshots == (3, 3)
    last = np.stack([gradient_norms(gram(runs.gradients("critic", 2, entry))) for entry in range(runs.ENTRIES)])
    for task, norm in zip(runs.TASKS, np.median(last, axis=0), strict=True):
        assert view.tasks[task]["critic norm"] == pytest.approx(norm)
        assert view.tasks[task]["critic share"] == pytest.approx(1 / 4)
    np.testing.assert_allclose([v["success"] for v in view.tasks.values()], runs.success(2, 4))
    spreads = np.sort(last.max(axis=1) / last.min(axis=1))
    found = [view.sides["critic"][name] for name in ("spread_low", "spread", "spread_high")]
    assert found == pytest.approx([spreads[0], np.median(spreads), spreads[-1]])


def test_before_the_first_collect(tmp_path: Path):
    view = look(str(runs.record(tmp_path / "new", snapshots=0, complete=False)))
    assert view.steps is None
    assert view.sides == {}


def test_the_terminal_view(diag, run, bare_run, tmp_path):  # noqa: F811
    code, out, _ = diag("watch", run)  # complete: shows it and ends
    assert code == 0
    assert "2,500,000 of 2,500,000 steps (100%); 5 of 5 snapshots; complete" in out
    assert "door-open" in out
    assert diag("watch", bare_run, "--once")[0] == 0
    assert json.loads(diag("watch", run, "--json")[1])["complete"]
    live = runs.record(tmp_path / "live", snapshots=1, complete=False)
    code, out, err = diag("watch", live)  # not a terminal
    assert (code, "give --once" in err) == (1, True)


# --- a stranger's recorder, and a run's own logs


@pytest.mark.parametrize(
    ("dims", "shape", "shown"),
    [(("task",), (2,), True), ((), (), False), (("task", "other"), (2, 1), False)],
)
@pytest.mark.parametrize("minibatch", [True, False])
@pytest.mark.parametrize("name", ["accuracy", "success", "critic_weights"])
def test_numbers_of_any_shape(diag, tmp_path: Path, dims, shape, shown, minibatch, name):  # noqa: F811
    """Success, accuracy and weights may have been recorded for each minibatch or snapshot, and not for each task."""
    kind = "minibatch_scalars" if minibatch else "snapshot_scalars"
    writer = DumpWriter.create(
        tmp_path / "d.zarr", tasks=["a", "b"], sides={"critic": 3}, snapshots=1, minibatches=2,
        **{kind: {name: ScalarSpec(dims)}},
    )  # fmt: skip
    given = {name: np.full(shape, 0.25)}
    J = np.eye(2, 3, dtype=np.float32)
    for m in range(2):
        writer.record_minibatch(m, slabs={"critic": J}, grams={"critic": gram(J)}, scalars=given if minibatch else {})
    writer.commit_snapshot(step=1, scalars={} if minibatch else given)
    writer.close()
    path = str(tmp_path / "d.zarr")
    code, _, err = diag("watch", path, "--once")
    assert (code, err) == (0, "")
    column = {"critic_weights": "critic share"}.get(name, name)
    assert (column in look(path).tasks["a"]) == shown
    for command in ("trap", "replay", "norms"):
        code, _, err = diag(command, path, "--format", "svg")
        assert (code, err) == (0, ""), command
    drawn = shown and name == "critic_weights"
    assert diag("weights", path, "--format", "svg")[0] == (0 if drawn else 1)


LINE = {"collect": 2, "env_steps": 200_000, "mean_success": 0.25, "tasks": {"reach-v3": {"success_ema": 0.25}}}


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A run of 1M steps after two of its ten collects, which records no gradients."""
    path = evaluate(tmp_path / "run7", flat(0.0), env_steps=1_000_000, env_steps_per_collect=100_000)
    (path / "progress.jsonl").write_text("".join(json.dumps(LINE | {"collect": n}) + "\n" for n in (1, 2)))
    timing = {"collect": 1, "environment": 40.0, "update": 60.0, "update_parts": {"grams": 9.0}}
    (path / "timings.jsonl").write_text(2 * (json.dumps(timing) + "\n"))
    return path


def test_a_run_without_dumps_shows_success_speed_and_time_left(diag, started):  # noqa: F811
    view = look(started)
    assert (view.run, view.steps, view.planned_steps, view.snapshots) == ("run7", 200_000, 1_000_000, None)
    assert view.steps_per_second == pytest.approx(1000)
    assert view.seconds_left == pytest.approx(800)
    assert view.mean_success == 0.25
    assert view.tasks == {"reach-v3": {"success": 0.25}}
    code, out, _ = diag("watch", started, "--once")
    assert code == 0
    assert "run7: 200,000 of 1,000,000 steps (20%); no gradients recorded; interrupted" in out
    assert "mean success 0.250, 1,000 steps/s, 13 min left once it goes on" in out
    assert json.loads(diag("watch", started, "--json")[1])["state"] == "interrupted"


def test_a_run_before_its_first_snapshot_shows_its_logs(diag, started):  # noqa: F811
    runs.record(started, tasks=("reach-v3",), snapshots=0, stream=False, complete=False)
    view = look(started)
    assert (view.steps, view.snapshots, view.mean_success) == (200_000, (0, 1), 0.25)
    assert view.tasks["reach-v3"] == {"success": 0.25}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot ask for a lock without taking it")
@pytest.mark.parametrize("lock", [".lock", ".dump.zarr.lock"])
def test_running_is_told_from_interrupted_by_the_lock(started, lock):
    assert look(started).state == "interrupted"
    held = FileLock(started / lock)
    with held:
        assert look(started).state == "running"
    (started / lock).touch()  # what a crash leaves
    assert look(started).state == "interrupted"
    with held.acquire(blocking=False):
        assert look(started).state == "running"


@pytest.mark.parametrize("line", ["{}", "3", "null", "[]", "[" * 10_000, '{"env_steps": "x", "tasks": 3}'])
def test_a_damaged_line_of_a_log_is_not_a_traceback(diag, started, line):  # noqa: F811
    for log in ("progress.jsonl", "timings.jsonl"):
        with (started / log).open("a") as file:
            file.write(line + "\n")
    assert diag("watch", started, "--once")[0] == 0


def test_info_of_a_directory_lists_its_runs(diag, started, archive):  # noqa: F811
    runs.record(started.parent / "whole")
    shutil.copy(archive, started.parent / "kept.h5")
    (started.parent / "other").mkdir()
    (started.parent / "bad.h5").write_text("no archive")
    code, out, err = diag("info", started.parent)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(lines) == {"run", "run7", "whole", "kept.h5", "bad.h5"}
    assert "200,000 of 1,000,000 (20%)" in lines["run7"]
    assert "complete" in lines["whole"] and "cannot be read" in lines["bad.h5"]
    listed = json.loads(diag("info", started.parent, "--json")[1])
    assert [row["run"] for row in listed["runs"]] == ["bad.h5", "kept.h5", "run7", "whole"]


@pytest.mark.parametrize("damage", ["cut", "gone", "attrs"])
def test_info_of_a_damaged_run_says_why(diag, tmp_path, damage):  # noqa: F811
    run = runs.record(tmp_path / "run")
    root = run / "dump.zarr" / "zarr.json"
    if damage == "gone":
        root.unlink()
    elif damage == "cut":
        root.write_bytes(root.read_bytes()[:500])
    else:
        document = json.loads(root.read_text())
        document["attributes"]["attrs"] = []
        root.write_text(json.dumps(document))
    for path in (run, run / "dump.zarr"):
        code, out, err = diag("info", path)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "zarr.json" in err or "not a dump" in err


def test_info_is_a_screen_that_reads(diag, archive):  # noqa: F811
    code, out, _ = diag("info", Path(__file__).parents[2] / "figures" / "data" / "toppo.h5")
    assert code == 0
    assert max(map(len, out.splitlines()[1:])) <= 100
    assert "environment steps 500,000 to 2,000,000" in out
    assert "  critic_combiner        fairgrad:alpha=1" in out


def test_a_dump_that_is_open_is_looked_at_anew(tmp_path: Path):
    with DumpWriter.create(tmp_path / "d", tasks="ab", sides={"trunk": 3}) as writer:
        writer.record(step=1, trunk=np.eye(2, 3))
        writer.flush()
        dump = open_dump(tmp_path / "d")
        assert (look(dump).steps, look(dump).complete) == (1, False)
        writer.record(step=2, trunk=np.eye(2, 3))
    assert (look(dump).steps, look(dump).complete) == (2, True)

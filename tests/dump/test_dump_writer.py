"""Recording: content, commits, resuming, errors."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dump import recordings as run
from toppo.common import files as common_files
from toppo.dump import DumpError, DumpWriter, ScalarSpec, buffers, export, files, gram, open_dump, verify


def test_what_was_recorded_is_read_back(store: Path) -> None:
    run.record_run(store)
    dump = open_dump(store)
    assert dump.n_snapshots == dump.n_planned == 6
    assert dump.n_stream == 6
    assert dump.complete
    assert dump.attrs == {"seed": 7, "config": {"lr": 3e-4, "name": "small"}}
    run.assert_content(dump)
    np.testing.assert_array_equal(dump.values("loss")[2], [[2, 3, 4], [2.5, 3.5, 4.5]])
    np.testing.assert_array_equal(dump.values("order")[0, 0], [[1, 2], [0, 2], [0, 1]])
    np.testing.assert_array_equal(dump.values("stream_env_steps"), 1000 * np.arange(6))
    assert verify(store).ok


def test_snapshot_is_invisible_until_its_commit(store: Path) -> None:
    writer = run.create(store)
    run.record_snapshot(writer, 0)
    run.record_minibatch(writer, 1, 0)
    run.record_minibatch(writer, 1, 1)
    writer.flush()
    assert open_dump(store).n_snapshots == writer.n_committed == 1
    writer.commit_snapshot(step=1, collect=1, scalars={"popart_sigma": np.ones(3)})
    writer.flush()
    assert open_dump(store).n_snapshots == writer.n_committed == 2
    writer.abandon()


def test_recording_copies(store: Path) -> None:
    """The trainer reuses its slab. A snapshot must hold the values at the time of recording."""
    given, losses = np.ones((3, 24), np.float32), np.ones(3)
    with DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24}, snapshots=20) as writer:
        for step in range(20):
            given[:], losses[:] = step, step
            writer.record(step=step, trunk=given, loss=losses)
            given[:], losses[:] = -1, -1
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.values("trunk_grad")[:, 0, 0, 0], np.arange(20))
    np.testing.assert_array_equal(dump.values("loss")[:, 0, 0], np.arange(20))


def test_a_commit_reaches_the_disk_after_its_chunks(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(path: Path) -> None:
        synced.append(re.sub(r"\.[0-9a-f]{8}\.", ".*.", path.relative_to(store).as_posix()))

    writer = run.create(store)
    monkeypatch.setattr(common_files, "fsync", note)
    run.record_snapshot(writer, 0)
    writer.flush()
    synced.clear()
    run.record_snapshot(writer, 1)
    writer.flush()
    writer.abandon()
    marker = [".zarr.json.*.partial", "."]
    assert synced[-2:] == marker
    commits = synced.count(marker[0])
    assert 1 <= commits <= 2  # the stream's and the snapshot's may be one
    assert {name for name in run.tree(store) if "/c.1" in name} == set(synced) - set(marker)
    if commits == 2:
        assert synced[4:6] == marker
        assert all("stream" in name for name in synced[:4])


def test_commits_in_groups(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that may wait share a commit. Whatever ends the wait commits them all."""
    writer = run.create(store, None, commit_every=3600)
    for snapshot in range(3):
        run.record_snapshot(writer, snapshot)
    writer._background._jobs.join()
    assert (writer.n_committed, writer.stream_committed, open_dump(store).n_snapshots) == (0, 0, 0)
    commits: list[Path] = []
    monkeypatch.setattr(common_files, "fsync", lambda path: commits.extend([path] if path == store else []))
    for end, snapshots in ((writer.flush, 3), (lambda: writer.call_after_commit(lambda: None), 4), (writer.abandon, 5)):
        if snapshots > 3:
            run.record_snapshot(writer, snapshots - 1)
        end()
        writer._background._jobs.join()
        assert open_dump(store).n_snapshots == snapshots == len(commits) + 2
    run.assert_content(open_dump(store))
    with DumpWriter.resume(store, commit_every=3600) as writer:
        run.record_snapshot(writer, 5)
    assert open_dump(store).n_snapshots == 6
    assert verify(store).ok


def test_content_is_a_function_of_what_was_recorded(tmp_path: Path) -> None:
    """There are no timestamps and no random names: two runs make the same files, byte for byte."""
    run.record_run(tmp_path / "a.zarr")
    run.record_run(tmp_path / "b.zarr")
    assert run.tree(tmp_path / "a.zarr") == run.tree(tmp_path / "b.zarr")


@pytest.mark.parametrize(("committed", "kept"), [(4, 4), (4, 2), (4, 0), (6, 6), (6, 3)])
@pytest.mark.parametrize("ended", ["close", "abandon"])
def test_resumed_run_equals_the_uninterrupted_one(
    complete: Path, store: Path, committed: int, kept: int, ended: str
) -> None:
    writer = run.create(store)
    for snapshot in range(committed):
        run.record_snapshot(writer, snapshot)
    if ended == "abandon" and committed < 6:
        run.record_minibatch(writer, committed, 0)
    getattr(writer, ended)()
    for torn in ("critic_gram/c.5.0.0.x.partial", ".zarr.json.0123abcd.partial", "loss/.zarr.json.0123abcd.partial"):
        (store / torn).write_bytes(b"torn")
    writer = DumpWriter.resume(store, snapshots=kept, stream=kept)
    live = open_dump(store)
    assert (live.n_snapshots, live.n_stream, live.complete) == (kept, kept, False)
    assert not [
        name for name in run.tree(store) if name.startswith("critic_grad/c.") and int(name.split(".")[1]) >= kept
    ]
    for snapshot in range(kept, 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    assert run.tree(store) == run.tree(complete)


def test_resume_keeps_everything_by_default(store: Path) -> None:
    writer = run.create(store)
    run.record_snapshot(writer, 0)
    writer.record_stream(1, grams={side: run.grams(1) for side in run.WIDTHS}, step=1000)
    writer.abandon()
    writer = DumpWriter.resume(store)
    assert (writer.n_committed, writer.stream_committed) == (1, 2)
    writer.abandon()


def test_resume_past_what_is_committed_is_refused(store: Path) -> None:
    run.record_run(store, snapshots=2)
    with pytest.raises(DumpError, match="cannot resume at 3 snapshots, it holds 2; resume from an older checkpoint"):
        DumpWriter.resume(store, snapshots=3)
    with pytest.raises(DumpError, match="cannot resume at 5 stream collects"):
        DumpWriter.resume(store, snapshots=2, stream=5)
    assert open_dump(store).complete


def test_a_shorter_run_than_planned_is_trimmed(store: Path) -> None:
    with run.create(store, snapshots=50) as writer:
        run.record_snapshot(writer, 0)
    dump = open_dump(store)
    assert (dump.n_snapshots, dump.n_planned) == (1, 50)
    assert json.loads((store / "critic_grad" / "zarr.json").read_text())["shape"][0] == 1


@pytest.mark.parametrize("snapshots", [None, 0])
def test_unknown_or_no_snapshots(store: Path, snapshots: int | None) -> None:
    """Without a plan there is room for many. A run may also record its Gram stream alone."""
    with run.create(store, snapshots=snapshots, stream=(None, run.ENTRIES)) as writer:
        writer.record_stream(0, grams={side: run.grams(0) for side in run.WIDTHS}, step=0)
        if snapshots is None:
            run.record_minibatch(writer, 0, 0)
            run.record_minibatch(writer, 0, 1)
            writer.commit_snapshot(step=0, collect=0, scalars={"popart_sigma": np.ones(3)})
    dump = open_dump(store)
    assert (dump.n_snapshots, dump.n_planned, dump.n_stream) == (1 if snapshots is None else 0, snapshots, 1)
    assert dump.gram_stream("actor").sizes == {"stream_collect": 1, "stream_entry": 4, "task": 3, "task_j": 3}
    assert verify(store).ok


def test_grams_alone(store: Path) -> None:
    run.record_run(store, snapshots=2, slabs=False)
    dump = open_dump(store)
    assert not dump.has_slabs
    assert not (store / "critic_grad").exists()
    np.testing.assert_array_equal(dump.values("critic_gram")[1, 0], gram(run.slab("critic", 1, 0)))
    with pytest.raises(
        DumpError, match="needs gradient slabs, but the dump holds Grams alone; record the run with slabs"
    ):
        dump.slab("critic", 0, 0)


def test_grams_alone_from_slabs(store: Path) -> None:
    """Without slabs and without Grams given, the Grams are computed all the same."""
    with DumpWriter.create(store, tasks=run.TASKS, sides={"actor": 24}, slabs=False) as writer:
        for step in range(4):
            writer.record(step=step, actor=run.slab("actor", step, 0))
    np.testing.assert_array_equal(open_dump(store).values("actor_gram")[3, 0], gram(run.slab("actor", 3, 0)))


def test_keepbits_rounds_slabs_and_not_grams(store: Path) -> None:
    run.record_run(store, snapshots=2, keepbits=8)
    dump = open_dump(store)
    stored, given = dump.slab_values("critic", 1, 1), run.slab("critic", 1, 1)
    assert not (stored.view(np.uint32) & np.uint32((1 << 15) - 1)).any()
    np.testing.assert_allclose(stored, given, rtol=2.0**-9)
    np.testing.assert_array_equal(dump.values("critic_gram")[1, 1], gram(given))
    assert verify(store).ok


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "with gradient"])
def test_torch_tensors(store: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    dtype = torch.float32 if kind == "with gradient" else getattr(torch, kind)
    values = torch.arange(72, dtype=dtype).reshape(3, 24).requires_grad_(kind == "with gradient")
    with DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24}) as writer:
        writer.record(step=0, trunk=values, loss=values[:, 0], total=values.sum() * 0 + 3)
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.slab_values("trunk", 0, 0), np.arange(72).reshape(3, 24))
    np.testing.assert_array_equal(dump.values("loss"), [[[0, 24, 48]]])
    np.testing.assert_array_equal(dump.values("total"), [[3]])


def test_one_task_alone(store: Path, tmp_path: Path) -> None:
    """The order of the other tasks is then an array without numbers."""
    order = {"order": ScalarSpec(("task", "other"), "i4")}
    with DumpWriter.create(store, tasks=["a"], sides={"trunk": 2}, minibatch_scalars=order) as writer:
        J = np.ones((1, 2), np.float32)
        writer.record_minibatch(
            0, slabs={"trunk": J}, grams={"trunk": gram(J)}, scalars={"order": np.empty((1, 0), "i4")}
        )
        writer.commit_snapshot(step=0)
    assert verify(store).ok
    assert open_dump(store).values("order").shape == (1, 1, 1, 0)
    assert verify(export(store, tmp_path / "one.h5")).ok


def test_the_package_imports_neither_torch_nor_what_only_some_need() -> None:
    code = (
        "import sys, toppo.dump; print([m for m in ('torch', 'xarray', 'h5py', 'zarr', 'fsspec') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rows_that_are_not_finite_are_kept_and_flagged(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = run.slab("actor", 0, 0)
    values[1, 3], values[2, 0] = np.nan, -np.inf
    with (
        caplog.at_level(logging.WARNING, "toppo.dump"),
        DumpWriter.create(store, tasks=run.TASKS, sides={"actor": 24}) as writer,
    ):
        writer.record(step=0, actor=values)
        writer.record(step=1, actor=values)
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.values("actor_finite"), [[[1, 0, 0]]] * 2)
    np.testing.assert_array_equal(dump.slab_values("actor", 0, 0), values)
    (said,) = (record.getMessage() for record in caplog.records)  # once for a side
    assert "snapshot 0, minibatch 0: the actor gradient of push, drawer-open is not finite; recorded and" in said
    report = verify(store)
    assert report.ok
    assert (
        "actor gradient of drawer-open: not finite in 2 minibatches, first in snapshot 0, minibatch 0, as recorded"
        in report.notes
    )


def test_stranger_records_with_undeclared_scalars(store: Path) -> None:
    with DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24, "head": 33}) as writer:
        for step in range(3):
            writer.record(
                step=10 * step,
                trunk=run.slab("actor", step, 0),
                head=run.slab("critic", step, 0),
                loss=np.full(3, step),
                accuracy=[0.1, 0.2, 0.3],
                confusion=np.eye(3),
                epoch=step,
            )
    dump = open_dump(store)
    assert dump.sides == ("trunk", "head")
    np.testing.assert_array_equal(dump.steps, [0, 10, 20])
    assert dump.array("accuracy").dims == ("snapshot", "minibatch", "task")
    assert dump.array("confusion").dims == ("snapshot", "minibatch", "task", "task_j")
    np.testing.assert_array_equal(dump.values("epoch"), [[0], [1], [2]])
    np.testing.assert_array_equal(dump.values("head_gram")[2, 0], gram(run.slab("critic", 2, 0)))
    assert verify(store).ok


def test_stranger_names_what_is_not_there(store: Path) -> None:
    writer = DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24})
    with pytest.raises(
        DumpError, match=r"trunc is float32 \(3, 24\): neither a side \(trunk\) nor numbers of shape \(3,\)"
    ):
        writer.record(step=0, trunc=run.slab("actor", 0, 0))
    with pytest.raises(DumpError, match="side 'trunk' came without its slab"):
        writer.record(step=0, loss=np.ones(3))
    writer.record(step=0, trunk=run.slab("actor", 0, 0), loss=np.ones(3))
    writer.close()


def test_stranger_resumes(store: Path) -> None:
    writer = DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24})
    writer.record(step=0, trunk=run.slab("actor", 0, 0), loss=np.ones(3))
    writer.abandon()
    for kept in (1, 0):
        with DumpWriter.resume(store, snapshots=kept) as writer:
            writer.record(step=1, trunk=run.slab("actor", 1, 0), loss=np.ones(3))
        assert open_dump(store).n_snapshots == kept + 1


def test_exception_in_the_block_leaves_a_dump_to_resume(store: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run.create(store) as writer:
        run.record_snapshot(writer, 0)
        run.record_minibatch(writer, 1, 0)
        raise KeyboardInterrupt
    dump = open_dump(store)
    assert (dump.n_snapshots, dump.complete) == (1, False)
    run.assert_content(dump)
    DumpWriter.resume(store, snapshots=1, stream=1).close()


def test_calls_after_commit_see_the_commit(store: Path) -> None:
    writer = run.create(store)
    seen = []
    for snapshot in range(3):
        run.record_snapshot(writer, snapshot)
        writer.call_after_commit(lambda: seen.append((open_dump(store).n_snapshots, threading.current_thread().name)))
    writer.close()
    assert seen == [(n, "toppo-dump-writer") for n in (1, 2, 3)]


def test_failing_call_after_commit_is_raised_and_the_dump_intact(store: Path) -> None:
    writer = run.create(store)
    run.record_snapshot(writer, 0)

    def fail() -> None:
        raise OSError(28, "No space left on device", "checkpoint.pt")

    writer.call_after_commit(fail)
    with pytest.raises(DumpError, match=r"the action after the commit failed: .*No space left.*; the dump is intact"):
        writer.flush()
    writer.abandon()
    run.assert_content(open_dump(store))


def test_background_failure_stops_the_trainer(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no space left in the middle of snapshot 2: one clear line, two snapshots intact, nothing hangs."""
    writer = run.create(store)
    for snapshot in range(2):
        run.record_snapshot(writer, snapshot)
    writer.flush()
    real = files.LocalFiles.write

    def full(self: files.LocalFiles, key: str, data: bytes) -> None:
        if key.startswith("critic_grad/c.2"):
            raise OSError(28, "No space left on device")
        real(self, key, data)

    monkeypatch.setattr(files.LocalFiles, "write", full)
    with pytest.raises(DumpError) as caught:
        for snapshot in range(2, 6):
            run.record_snapshot(writer, snapshot)
        writer.flush()
    expected = (
        "writing failed (No space left on device); its 2 committed snapshots are intact: free some space and resume"
    )
    assert str(caught.value) == f"{store}: {expected}"
    for call in (writer.check, writer.flush, writer.close):
        with pytest.raises(DumpError, match="No space left"):
            call()
    monkeypatch.undo()
    dump = open_dump(store)
    assert (dump.n_snapshots, dump.complete) == (2, False)
    run.assert_content(dump)
    writer = DumpWriter.resume(store, snapshots=2, stream=2)
    for snapshot in range(2, 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    assert verify(store).ok


def test_memory_is_bounded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the background thread is stuck, the slabs of as many snapshots are taken as may wait. Then a call waits."""
    monkeypatch.setattr(buffers, "MOST_BYTES", 0)  # one may always wait
    writer = run.create(store)
    gate, blocked = threading.Event(), threading.Event()
    writer.call_after_commit(lambda: gate.wait(30))

    def train() -> None:
        for snapshot in range(3):
            run.record_snapshot(writer, snapshot)
        blocked.set()

    trainer = threading.Thread(target=train)
    trainer.start()
    assert not blocked.wait(0.5)
    gate.set()
    trainer.join(30)
    assert blocked.is_set()
    writer.close()
    run.assert_content(open_dump(store))


def test_a_path_that_is_taken(store: Path) -> None:
    run.record_run(store, snapshots=1)
    with pytest.raises(DumpError, match="already there; resume it or choose another path"):
        run.create(store)
    run.assert_content(open_dump(store))


def test_an_interrupted_creation_leaves_nothing_in_the_way(store: Path) -> None:
    stale = store.with_name(".dump.zarr.0123456789abcdef.creating")
    (stale / "actor_grad").mkdir(parents=True)
    run.record_run(store, snapshots=1)
    run.assert_content(open_dump(store))


SLABS = {side: run.slab(side, 0, 0) for side in run.WIDTHS}
SCALARS = {"loss": np.zeros(3), "iterations": 1, "order": np.zeros((3, 2), int)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slabs": {"actor": SLABS["actor"]}}, "side 'critic' came without its slab"),
        (
            {"slabs": SLABS | {"actor": np.zeros((3, 25), "f4")}},
            r"actor slab is float32 \(3, 25\), expected floats \(3, 24\)",
        ),
        (
            {"slabs": SLABS | {"actor": np.zeros((2, 24), "f4")}},
            r"actor slab is float32 \(2, 24\), expected floats \(3, 24\)",
        ),
        ({"slabs": SLABS | {"actor": np.zeros((3, 24), complex)}}, "actor slab is complex128"),
        ({"slabs": SLABS | {"value": np.zeros((3, 24), "f4")}}, "unknown side value; it has actor, critic"),
        ({"grams": {"actor": np.zeros((4, 4))}}, r"actor gram is float64 \(4, 4\), expected float64 \(3, 3\)"),
        (
            {"scalars": {"loss": np.zeros(3)}},
            "iterations is missing, order is missing; record exactly the declared scalars",
        ),
        ({"scalars": SCALARS | {"kl": 1.0}}, "kl is unknown"),
        ({"scalars": SCALARS | {"loss": np.zeros(4)}}, r"loss is float64 \(4,\), expected float64 \(3,\)"),
        ({"scalars": SCALARS | {"iterations": 1.5}}, "iterations is float64"),
        ({"minibatch": 2}, r"minibatch 2 is not in 0\.\.1"),
    ],
)
def test_wrong_minibatches_are_refused_and_leave_the_writer_usable(store: Path, change: dict, message: str) -> None:
    writer = run.create(store)
    arguments = {"minibatch": 0, "slabs": SLABS, "scalars": SCALARS} | change
    with pytest.raises(DumpError, match=message):
        writer.record_minibatch(**arguments)
    run.record_snapshot(writer, 0)
    writer.abandon()
    run.assert_content(open_dump(store))


def test_wrong_order_of_calls(store: Path) -> None:
    writer = run.create(store, snapshots=1)
    with pytest.raises(DumpError, match=r"snapshot 0 cannot be committed: minibatches \[0, 1\] were not recorded"):
        writer.commit_snapshot(step=0, collect=0, scalars={"popart_sigma": np.ones(3)})
    with pytest.raises(DumpError, match="stream collect 3 is out of order; 0 is next"):
        writer.record_stream(3, grams={side: run.grams(0) for side in run.WIDTHS}, step=0)
    with pytest.raises(DumpError, match=r"Grams of \['actor'\], expected \['actor', 'critic'\]"):
        writer.record_stream(0, grams={"actor": run.grams(0)}, step=0)
    with pytest.raises(DumpError, match=r"actor Grams is float64 \(3, 3, 3\), expected float64 \(4, 3, 3\)"):
        writer.record_stream(0, grams={side: run.grams(0)[:3] for side in run.WIDTHS}, step=0)
    run.record_minibatch(writer, 0, 1)
    with pytest.raises(DumpError, match="minibatch 1 was already recorded"):
        run.record_minibatch(writer, 0, 1)
    run.record_minibatch(writer, 0, 0)
    writer.commit_snapshot(step=0, collect=0, scalars={"popart_sigma": np.ones(3)})
    with pytest.raises(DumpError, match="was created for 1 snapshots and holds them all; plan for more"):
        run.record_minibatch(writer, 1, 0)
    writer.close()
    with pytest.raises(DumpError, match="this writer has ended; resume the dump to add to it"):
        run.record_minibatch(writer, 1, 0)


def test_close_with_a_snapshot_begun(store: Path) -> None:
    writer = run.create(store)
    run.record_minibatch(writer, 0, 0)
    with pytest.raises(DumpError, match="snapshot 0 was begun and not committed; commit it before close"):
        writer.close()
    DumpWriter.resume(store).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["a", "a"]}, "give one or more distinct names"),
        ({"tasks": []}, "give one or more distinct names"),
        ({"sides": {}}, "a dump needs at least one side"),
        ({"sides": {"actor": 0}}, "side 'actor' has no parameters"),
        ({"sides": {"my side": 3}}, "'my side' cannot name a side, scalar or step axis"),
        ({"minibatch_scalars": {"env_steps": ScalarSpec()}}, "the name 'env_steps' is taken"),
        ({"minibatch_scalars": {"task": ScalarSpec()}}, "the name 'task' is taken"),
        ({"snapshot_scalars": {"loss": ScalarSpec()}}, "the name 'loss' is taken"),
        ({"minibatch_scalars": {"kl": ScalarSpec(("layer",))}}, "scalar 'kl': dims are out of task, task_j, other"),
        ({"keepbits": 24}, r"`keepbits=24`: must lie in 1\.\.23"),
        ({"minibatches": 0}, "`minibatches=0`: must be 1 or more"),
        ({"snapshots": -1}, "`snapshots=-1`: must be 0 or more, or None if unknown"),
        ({"attrs": {"f": print}}, "`attrs` cannot be kept as JSON"),
        ({"attrs": {"lr": float("nan")}}, "`attrs` cannot be kept as JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_at_creation(store: Path, change: dict, message: str) -> None:
    with pytest.raises(DumpError, match=message):
        run.create(store, **change)
    assert not store.exists()


@pytest.mark.parametrize("more", [{"minibatches": 2}, {"snapshot_scalars": {"rate": ScalarSpec(())}}])
def test_record_is_for_snapshots_of_one_minibatch(store: Path, more: dict[str, Any]) -> None:
    with DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 24}, **more) as writer:
        for _ in range(2):
            with pytest.raises(DumpError, match="`record` takes one minibatch alone; use `record_minibatch`"):
                writer.record(step=1, trunk=np.zeros((3, 24)))


@pytest.mark.parametrize("side", ["step", "present", "self", "loss"])
def test_a_side_has_no_name_of_another_value(store: Path, side: str) -> None:
    with pytest.raises(DumpError, match=f"side '{side}' has the name of another value of a record"):
        DumpWriter.create(store, tasks="ab", sides={side: 3}, minibatch_scalars={"loss": ScalarSpec(("task",))})

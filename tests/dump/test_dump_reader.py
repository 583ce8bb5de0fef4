"""Reading: labels, laziness, live runs, other tools, URLs, and what is not a dump."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tracemalloc
import uuid
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, describe, export, gram, open_dump, run_logs, verify


def test_grams_are_labelled(complete: Path) -> None:
    G = open_dump(complete).gram("critic")
    assert G.dims == ("snapshot", "minibatch", "task", "task_j")
    assert G.dtype == np.float64
    assert G.coords["task"].values.tolist() == G.coords["task_j"].values.tolist() == run.TASKS
    np.testing.assert_array_equal(G.coords["env_steps"], 1000 * np.arange(6))
    np.testing.assert_array_equal(G.coords["collect"], np.arange(6))
    assert G.attrs == {"units": "(loss per unit of parameter)^2", "long_name": "G_ij = <g_i, g_j>"}
    at = G.sel(snapshot=2, minibatch=1, task="push", task_j="reach")
    values = run.slab("critic", 2, 1).astype(float)
    np.testing.assert_allclose(at, values[1] @ values[0], rtol=1e-12)


def test_a_dump_is_a_mapping_of_labelled_arrays(complete: Path) -> None:
    dump = open_dump(complete)
    xr.testing.assert_identical(dump["critic_gram"], dump.array("critic_gram"))
    assert dump["loss"].sel(task="push", snapshot=2, minibatch=1) == 3.5
    assert list(dump) == list(dump.names)
    assert "loss" in dump
    assert "task" in dump
    assert "los" not in dump
    assert 3 not in dump
    assert dict.fromkeys(dump).keys() == set(dump.dataset().variables)


def test_a_dump_is_a_path(store: Path) -> None:
    """What takes a path takes a dump, and opening it again shows what was added."""
    with run.create(store, snapshots=2) as writer:
        run.record_snapshot(writer, 0)
        writer.flush()
        before = open_dump(store)
        run.record_snapshot(writer, 1)
    assert os.fspath(before) == str(store)
    after = open_dump(before)
    assert (before.n_snapshots, after.n_snapshots) == (1, 2)
    assert repr(after) == (
        f"<Dump {store}: 2 snapshots with 2 minibatches each, 3 tasks, sides actor and critic, with slabs, complete>"
    )
    assert verify(after).ok
    assert export(after, store.with_suffix(".h5")).is_file()


def test_slab_and_layer(complete: Path) -> None:
    dump = open_dump(complete)
    slab = dump.slab("actor", 3, 1)
    assert slab.dims == ("task", "actor_param")
    assert (int(slab.env_steps), int(slab.snapshot), int(slab.minibatch)) == (3000, 3, 1)
    bias = dump.slab("actor", 3, 1, parameter="0.bias")
    np.testing.assert_array_equal(bias, slab[:, 20:24])
    parts = [dump.layer_gram("actor", part.name, 3, 1) for part in dump.parameters("actor")]
    assert parts[0].dims == ("task", "task_j")
    np.testing.assert_allclose(sum(part.values for part in parts), gram(slab.values), rtol=1e-12)
    assert [(p.name, p.shape, p.offset, p.size) for p in dump.parameters("actor")] == [
        ("0.weight", (4, 5), 0, 20),
        ("0.bias", (4,), 20, 4),
    ]


def test_dataset_reads_only_what_is_indexed(complete: Path, tmp_path: Path) -> None:
    """With every other slab gone, one can still be read."""
    copy = tmp_path / "dump.zarr"
    shutil.copytree(complete, copy)
    for file in (copy / "critic_grad").glob("c.*"):
        if file.name != "c.4.1.0.0":
            file.unlink()
    grad = open_dump(copy).dataset()["critic_grad"]
    np.testing.assert_array_equal(grad.isel(snapshot=4, minibatch=1), run.slab("critic", 4, 1))
    np.testing.assert_array_equal(
        grad.isel(snapshot=[4], minibatch=slice(1, 0, -1), task=[2, 0], critic_param=slice(30, None, -7))[0, 0],
        run.slab("critic", 4, 1)[[2, 0], 30::-7],
    )
    with pytest.raises(
        DumpError, match=r"critic_grad/c\.0\.1\.0\.0 is missing or empty, though committed; see `toppo-diag verify`"
    ):
        grad.isel(minibatch=1).load()


def test_slabs_stream_in_bounded_memory(store: Path) -> None:
    P, steps = 50_000, 12
    with DumpWriter.create(store, tasks=["a", "b"], sides={"trunk": P}, snapshots=steps) as writer:
        for step in range(steps):
            writer.record(step=step, trunk=np.full((2, P), step, np.float32))
    dump = open_dump(store)
    next(dump.iter_slabs("trunk"))
    tracemalloc.start()
    seen = [(snapshot, minibatch, float(slab[0, 0])) for snapshot, minibatch, slab in dump.iter_slabs("trunk")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [(step, 0, step) for step in range(steps)]
    assert peak < 5 * 2 * P * 4


@pytest.mark.parametrize("complete_run", [True, False])
def test_other_tools_open_a_dump(store: Path, complete_run: bool) -> None:
    writer = run.create(store)
    for snapshot in range(2):
        run.record_snapshot(writer, snapshot)
    writer.flush()
    getattr(writer, "close" if complete_run else "abandon")()
    dataset = xr.open_zarr(store, consolidated=False)
    assert dataset.sizes["snapshot"] == (2 if complete_run else 6)
    assert {"snapshot", "minibatch", "task", "task_j", "env_steps", "collect", "stream_env_steps"} == set(
        dataset.coords
    )
    assert dataset["critic_grad"].dims == ("snapshot", "minibatch", "task", "critic_param")
    selected = dataset["critic_grad"].sel(task="push", snapshot=1, minibatch=0)
    np.testing.assert_array_equal(selected, run.slab("critic", 1, 0)[1])
    assert dataset["task"].values.tolist() == run.TASKS
    if not complete_run:
        assert np.isnan(dataset["loss"][2:]).all()
        assert (dataset["env_steps"][2:] == -1).all()
    group = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(group["actor_grad"][1, 1], run.slab("actor", 1, 1))
    assert group["actor_grad"].metadata.dimension_names == ("snapshot", "minibatch", "task", "actor_param")
    assert group.attrs["n_committed"] == 2
    assert (group.metadata.consolidated_metadata is not None) is complete_run
    if complete_run:
        consolidated = xr.open_zarr(store, consolidated=True)
        xr.testing.assert_identical(consolidated.load(), dataset.load())


def test_consolidated_metadata_is_zarrs_own(complete: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dump.zarr"
    shutil.copytree(complete, copy)
    with pytest.warns(match="Consolidated metadata"):
        zarr.consolidate_metadata(copy)
    ours, theirs = (json.loads((path / "zarr.json").read_text()) for path in (complete, copy))
    assert ours == theirs


def test_live_run_is_read_cut_to_its_commits(store: Path) -> None:
    writer = run.create(store)
    for snapshot in range(3):
        run.record_snapshot(writer, snapshot)
        writer.flush()
        dump = open_dump(store.parent)
        assert (dump.n_snapshots, dump.n_planned, dump.complete) == (snapshot + 1, 6, False)
        assert dump.dataset().sizes["snapshot"] == dump.gram("actor").sizes["snapshot"] == snapshot + 1
        run.assert_content(dump)
    report = verify(store)
    assert report.ok
    assert report.notes[0] == "not complete: the run is being written or was interrupted"
    writer.abandon()


def test_urls() -> None:
    pytest.importorskip("fsspec")
    url = f"memory://{uuid.uuid4().hex}/run1/dump.zarr"
    writer = run.create(url)
    for snapshot in range(4):
        run.record_snapshot(writer, snapshot)
    writer.flush()
    assert open_dump(url).n_snapshots == 4
    writer.abandon()
    writer = DumpWriter.resume(url, snapshots=2, stream=2)
    assert open_dump(url).n_snapshots == 2
    for snapshot in range(2, 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    dump = open_dump(url.removesuffix("/dump.zarr"))
    assert (dump.n_snapshots, dump.complete, dump.path) == (6, True, url)
    run.assert_content(dump)
    assert dump.gram("critic").sizes["snapshot"] == 6
    assert verify(url).ok
    assert xr.open_zarr(url, consolidated=False).sizes["snapshot"] == 6
    with pytest.raises(DumpError, match="already there; resume it or choose another place"):
        run.create(url)
    with pytest.raises(DumpError, match=r"not a dump \(no zarr\.json there\)"):
        open_dump("memory://nowhere")


def test_file_urls_are_local(complete: Path) -> None:
    assert open_dump(f"file://{complete}").path == str(complete)


def test_description(complete: Path) -> None:
    facts = describe(open_dump(complete))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["snapshots"] == 6
    assert facts["steps"] == [0, 5000]
    assert facts["sides"] == {
        "actor": {"parameters": 24, "tensors": ["0.weight", "0.bias"]},
        "critic": {"parameters": 33, "tensors": ["all"]},
    }
    assert facts["not_finite"] == {"actor": 0, "critic": 0}
    assert facts["scalars"] == ["loss", "iterations", "order", "popart_sigma"]
    assert facts["bytes"] == sum(len(content) for content in run.tree(complete).values())


def edited(complete: Path, folder: Path, **attributes: object) -> Path:
    """A copy of a dump whose root attributes say something else."""
    path = folder / "dump.zarr"
    shutil.copytree(complete, path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"] |= attributes
    (path / "zarr.json").write_text(json.dumps(root))
    return path


@pytest.mark.parametrize(
    ("version", "mend"),
    [
        (3, "update toppo to read version 3"),
        (0, "read it with the toppo that wrote it, or record it again"),
        (None, "read it with"),
    ],
)
def test_other_schema_versions(complete: Path, tmp_path: Path, version: object, mend: str) -> None:
    path = edited(complete, tmp_path, schema_version=version)
    for use in (open_dump, verify, DumpWriter.resume):
        with pytest.raises(
            DumpError, match=f"{path}: schema version {version}, but this toppo reads versions 1 to 2; {mend}"
        ):
            use(path)


def test_damaged_headers(complete: Path, tmp_path: Path) -> None:
    with pytest.raises(DumpError, match=r"its header is damaged .*; restore zarr\.json from a copy"):
        open_dump(edited(complete, tmp_path, layout={"tasks": []}))
    root = tmp_path / "dump.zarr" / "zarr.json"
    root.write_bytes(root.read_bytes()[:-100])
    with pytest.raises(DumpError, match=r"zarr\.json is not JSON .*; restore it from a copy"):
        open_dump(tmp_path)


def test_what_is_not_a_dump(tmp_path: Path) -> None:
    with pytest.raises(
        DumpError, match=r"no such file or directory; give a run directory, its dump\.zarr or an exported \.h5"
    ):
        open_dump(tmp_path / "nowhere")
    (tmp_path / "dumps/mine").mkdir(parents=True)
    with contextlib.chdir(tmp_path):
        for read in (open_dump, run_logs):
            with pytest.raises(DumpError, match=r"^mine: no such file or directory; did you mean dumps/mine\?$"):
                read("mine")
    with pytest.raises(DumpError, match=r"not a dump .*; give a run directory, its dump\.zarr or an exported \.h5"):
        open_dump(tmp_path)
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(DumpError, match="not a toppo dump"):
        open_dump(tmp_path / "other.zarr")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DumpError, match=r"notes\.txt: not an archive, or its start is damaged"):
        open_dump(tmp_path / "notes.txt")


def test_questions_a_dump_cannot_answer(complete: Path, store: Path) -> None:
    dump = open_dump(complete)
    for question, answer in [
        (lambda: dump.gram("value"), "has no side 'value'; its sides are actor, critic"),
        (lambda: dump.array("reward"), "has no array 'reward'; it has snapshot, minibatch, task"),
        (lambda: dump.slab("actor", 6, 0), "has no snapshot 6, it holds 6; count from 0"),
        (lambda: dump.slab("actor", 0, 2), "has no minibatch 2, it holds 2"),
        (lambda: dump.slab("actor", 0, 0, "1.bias"), "side 'actor' has no parameter '1.bias'; it has 0.weight, 0.bias"),
    ]:
        with pytest.raises(DumpError, match=answer):
            question()
    with DumpWriter.create(store, tasks=run.TASKS, sides={"trunk": 4}) as writer:
        writer.record(step=0, trunk=np.ones((3, 4), np.float32))
    with pytest.raises(DumpError, match="has no Gram stream; record the run with one"):
        open_dump(store).gram_stream("trunk")


def test_no_snapshot_yet(store: Path) -> None:
    writer = run.create(store)
    dump = open_dump(store)
    assert (dump.n_snapshots, len(dump.steps), list(dump.iter_slabs("actor"))) == (0, 0, [])
    assert describe(dump)["steps"] is None
    for question in (lambda: dump.gram("critic"), lambda: dump.array("loss"), lambda: dump.gram_stream("actor")):
        with pytest.raises(
            DumpError, match=r"holds no (snapshot|stream collect) yet; wait for the run's first one, or resume it"
        ):
            question()
    assert verify(store).ok
    writer.close()
    with pytest.raises(DumpError, match="holds no snapshot yet; record a longer run"):
        open_dump(store).gram("critic")
    assert xr.open_zarr(store, consolidated=False).sizes["snapshot"] == 0


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_never_read_as_data(complete: Path, tmp_path: Path, keep: int) -> None:
    copy = tmp_path / "dump.zarr"
    shutil.copytree(complete, copy)
    for key in ("critic_grad/c.2.1.0.0", "actor_gram/c.3.0.0.0", "env_steps/c.1"):
        os.truncate(copy / key, keep if keep >= 0 else (copy / key).stat().st_size - 1)
    dump = open_dump(copy)
    for question, what in [
        (lambda: dump.slab_values("critic", 2, 1), r"critic_grad(, snapshot 2, minibatch 1|/c\.2\.1\.0\.0)"),
        (lambda: dump.values("actor_gram"), r"actor_gram(/c\.3\.0\.0\.0)?"),
        (lambda: dump.steps, r"env_steps(/c\.1)?"),
        (lambda: dump.gram("critic"), r"env_steps(/c\.1)?"),
    ]:
        with pytest.raises(DumpError, match=f"{what} (cannot be read|is missing or empty).*; see `toppo-diag verify`"):
            question()
    np.testing.assert_array_equal(dump.slab_values("critic", 2, 0), run.slab("critic", 2, 0))
    named = {(d.array, d.snapshot) for d in verify(copy).damages}
    assert named == {("critic_grad", 2), ("actor_gram", 3), ("env_steps", 1)}

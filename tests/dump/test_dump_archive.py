"""The HDF5 archive: everything but the slabs, readable by plain h5py and by `open_dump`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from tests.dump import recordings as run
from toppo.dump import DumpError, describe, export, open_dump, verify


@pytest.fixture(scope="module")
def archive(complete: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(complete, tmp_path_factory.mktemp("archive") / "run1.h5")


def test_everything_but_the_slabs(complete: Path, archive: Path) -> None:
    dump, copy = open_dump(complete), open_dump(archive)
    assert set(dump.names) - set(copy.names) == {"actor_grad", "critic_grad"}
    by_layer = {f"{side}_{what}" for side in dump.sides for what in ("layer", "layer_gram")}
    assert set(copy.names) - set(dump.names) == by_layer
    for name in set(copy.names) - by_layer:
        np.testing.assert_array_equal(copy.values(name), dump.values(name))
    without = copy.dataset().drop_vars(by_layer).load()
    xr.testing.assert_identical(without, dump.dataset().drop_vars(["actor_grad", "critic_grad"]).load())
    xr.testing.assert_identical(copy.gram("critic"), dump.gram("critic"))
    xr.testing.assert_identical(copy.gram_stream("actor"), dump.gram_stream("actor"))
    assert (copy.attrs, copy.tasks, copy.complete) == (dump.attrs, dump.tasks, True)
    assert copy.parameters("actor") == dump.parameters("actor")
    assert archive.stat().st_size < 200_000
    assert verify(archive).ok


def test_what_needs_slabs_says_so(archive: Path) -> None:
    copy = open_dump(archive)
    mend = f"{archive}: this needs gradient slabs, but the archive holds Grams alone; use the dump it was exported from"
    for question in (
        lambda: copy.slab("critic", 0, 0),
        lambda: copy.array("critic_grad"),
        lambda: next(copy.iter_slabs("actor")),
    ):
        with pytest.raises(DumpError) as caught:
            question()
        assert str(caught.value).startswith(mend)


def test_layers_can_be_seen_without_slabs(complete: Path, archive: Path) -> None:
    dump, copy = open_dump(complete), open_dump(archive)
    assert copy.layer_names("actor") == ["0.weight", "0.bias"]
    for side in copy.sides:
        assert copy.has_layers(side)
        xr.testing.assert_identical(copy.layer_grams(side), dump.layer_grams(side))
    xr.testing.assert_identical(copy.layer_gram("actor", "0.bias", 3, 1), dump.layer_gram("actor", "0.bias", 3, 1))
    again = open_dump(export(archive, archive.with_name("again.h5")))
    xr.testing.assert_identical(again.layer_grams("actor"), dump.layer_grams("actor"))


def test_plain_h5py(archive: Path) -> None:
    with h5py.File(archive) as file:
        gram = file["critic_gram"]
        assert gram.shape == (6, 2, 3, 3)
        assert gram.attrs["units"] == "(loss per unit of parameter)^2"
        assert gram.attrs["description"] == "G_ij = <g_i, g_j>"
        assert [dim.label for dim in gram.dims] == ["snapshot", "minibatch", "task", "task_j"]
        assert gram.dims[2][0].asstr()[:].tolist() == run.TASKS
        assert file["popart_sigma"].attrs["units"] == "return"
        assert file["critic_gram_stream"].dims[0].label == "stream_collect"
        for name, array in file.items():
            if isinstance(array, h5py.Dataset) and name != "header":
                assert array.is_scale or all(len(dim) == 1 for dim in array.dims), name
        assert file.attrs["seed"] == 7
        assert json.loads(file["header"].asstr()[()])["attrs"]["config"] == {"lr": 3e-4, "name": "small"}
        assert file["parameters/actor/name"].asstr()[:].tolist() == ["0.weight", "0.bias"]
        assert file["parameters/actor/offset"][:].tolist() == [0, 20]
        assert file["parameters/actor/shape"].asstr()[:].tolist() == ["4,5", "4"]


def test_slabs_too(complete: Path, tmp_path: Path) -> None:
    steps = []
    path = export(complete, tmp_path / "all.h5", slabs=True, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 24) for n in range(1, 25)]
    copy = open_dump(path)
    run.assert_content(copy)
    np.testing.assert_array_equal(
        copy.dataset()["actor_grad"].isel(snapshot=[3, 1], minibatch=0, task=[2, 0], actor_param=slice(None, None, -2)),
        np.stack([run.slab("actor", s, 0)[[2, 0], ::-2] for s in (3, 1)]),
    )
    report = verify(path)
    assert report.ok
    assert report.slabs == 24


def test_rounded_slabs(complete: Path, tmp_path: Path) -> None:
    path = export(complete, tmp_path / "rounded.h5", slabs=True, keepbits=10)
    copy = open_dump(path)
    assert describe(copy)["keepbits"] == 10
    np.testing.assert_allclose(copy.slab_values("critic", 0, 0), run.slab("critic", 0, 0), rtol=2.0**-11)
    np.testing.assert_array_equal(copy.values("critic_gram"), open_dump(complete).values("critic_gram"))
    assert verify(path).ok
    again = export(path, tmp_path / "again.h5", slabs=True, keepbits=16)
    assert describe(open_dump(again))["keepbits"] == 10


def test_a_live_run_is_exported_as_far_as_it_is(store: Path, tmp_path: Path) -> None:
    writer = run.create(store)
    for snapshot in range(3):
        run.record_snapshot(writer, snapshot)
    writer.flush()
    copy = open_dump(export(store, tmp_path / "live.h5"))
    writer.abandon()
    assert (copy.n_snapshots, copy.n_planned, copy.complete) == (3, 6, False)
    assert verify(copy.path).ok


def test_exports_are_the_same_bytes(complete: Path, archive: Path, tmp_path: Path) -> None:
    assert export(complete, tmp_path / "again.h5").read_bytes() == archive.read_bytes()


def test_what_cannot_be_exported(complete: Path, store: Path, tmp_path: Path, archive: Path) -> None:
    target = tmp_path / "run.h5"
    with pytest.raises(DumpError, match="`keepbits=10`: needs `slabs`"):
        export(complete, target, slabs=False, keepbits=10)
    for keepbits in (0, 24):
        with pytest.raises(DumpError, match=rf"`keepbits={keepbits}`: must lie in 1\.\.23"):
            export(complete, target, slabs=True, keepbits=keepbits)
    with pytest.raises(DumpError, match="this needs gradient slabs"):
        export(archive, target, slabs=True)
    run.create(store).close()
    with pytest.raises(DumpError, match="holds no snapshot yet, so nothing to export"):
        export(store, target)
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(complete, damaged)
    (damaged / "loss" / "c.1.0.0").unlink()
    target.write_text("an earlier file")
    with pytest.raises(DumpError, match=r"loss/c\.1\.0\.0 is missing"):
        export(damaged, target)
    assert target.read_text() == "an earlier file"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".partial") == []


def test_damaged_archives(complete: Path, tmp_path: Path) -> None:
    path = export(complete, tmp_path / "run.h5", slabs=True)
    sound = path.read_bytes()
    with h5py.File(path) as file:
        offset = file["critic_gram"].id.get_chunk_info(4).byte_offset
        row = file["actor_grad"].id.get_chunk_info(7).byte_offset
    data = bytearray(sound)
    data[offset + 9] ^= 4
    data[row + 30] ^= 1
    path.write_bytes(data)
    dump = open_dump(path)
    with pytest.raises(DumpError, match="critic_gram cannot be read"):
        dump.gram("critic")
    damages = verify(path).damages
    assert [(d.array, d.snapshot, d.minibatch, d.task) for d in damages] == [
        ("actor_grad", 1, 0, "push"),
        ("critic_gram", 4, None, None),
    ]
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(DumpError, match=r"run\.h5: this file cannot be read \(.*truncated"):
        open_dump(path)


def test_archive_of_another_schema_version(complete: Path, tmp_path: Path) -> None:
    path = export(complete, tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        record = json.loads(file["header"].asstr()[()]) | {"schema_version": 9}
        del file["header"]
        file["header"] = json.dumps(record)
    with pytest.raises(
        DumpError, match="schema version 9, but this toppo reads versions 1 to 2; update toppo to read version 9"
    ):
        open_dump(path)
    with h5py.File(path, "r+") as file:
        del file["header"]
    with pytest.raises(DumpError, match="not a toppo dump"):
        open_dump(path)

"""Content is bound to its place: nothing in a dump can be exchanged, copied or put in another order unseen."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, export, header, open_dump, verify
from toppo.dump.header import checksum

DATA = Path(__file__).parent / "data"


@pytest.fixture
def copy(complete: Path, tmp_path: Path) -> Path:
    path = tmp_path / "dump.zarr"
    shutil.copytree(complete, path)
    return path


def exchange(one: Path, other: Path) -> None:
    beside = one.with_name("beside")
    one.rename(beside)
    other.rename(one)
    beside.rename(other)


def copied(path: Path) -> set[tuple[str, int | None]]:
    shutil.copy(path / "loss" / "c.0.0.0", path / "loss" / "c.1.0.0")
    return {("loss", 1)}


def exchanged_chunks(path: Path) -> set[tuple[str, int | None]]:
    exchange(path / "critic_gram" / "c.2.0.0.0", path / "critic_gram" / "c.4.0.0.0")
    return {("critic_gram", 2), ("critic_gram", 4)}


def exchanged_slabs(path: Path) -> set[tuple[str, int | None]]:
    exchange(path / "actor_grad" / "c.2.0.0.0", path / "actor_grad" / "c.2.1.0.0")
    return {("actor_grad", 2)}


def exchanged_snapshots(path: Path) -> set[tuple[str, int | None]]:
    """Every chunk, and the coordinates; the manifests stay."""
    for file in sorted(path.glob("*/c.3*")):
        if "stream" not in file.parent.name and "manifest" not in file.parent.name:
            exchange(file, file.with_name(file.name.replace("c.3", "c.1", 1)))
    return {("loss", 1), ("loss", 3), ("critic_gram", 1), ("critic_grad", 3), ("env_steps", 1)}


def exchanged_snapshots_and_manifests(path: Path) -> set[tuple[str, int | None]]:
    for file in sorted(path.glob("*/c.3*")):
        if "stream" not in file.parent.name:
            exchange(file, file.with_name(file.name.replace("c.3", "c.1", 1)))
    return {("snapshot-manifest", 1), ("snapshot-manifest", 3)}


def of_another_run(path: Path) -> set[tuple[str, int | None]]:
    """A whole snapshot with its manifest, from a run that went otherwise before."""
    other = path.with_name("other.zarr")
    with run.create(other) as writer:
        for snapshot in (0, 2, 3, 4, 5):
            run.record_snapshot(writer, snapshot, stream=False)
    for file in other.glob("*/c.2*"):
        if "stream" not in file.parent.name:
            shutil.copy(file, path / file.relative_to(other))
    return {("snapshot-manifest", 2), ("snapshot-manifest", 3)}


def a_lost_manifest(path: Path) -> set[tuple[str, int | None]]:
    (path / "stream-manifest" / "c.5.0").unlink()
    return {("stream-manifest", 5)}


@pytest.mark.parametrize(
    "damage",
    [
        copied,
        exchanged_chunks,
        exchanged_slabs,
        exchanged_snapshots,
        exchanged_snapshots_and_manifests,
        of_another_run,
        a_lost_manifest,
    ],
)
def test_content_in_another_place_is_found(copy: Path, damage: Callable[[Path], set[tuple[str, int | None]]]) -> None:
    expected = damage(copy)
    assert expected <= {(found.array, found.snapshot) for found in verify(copy).damages}


def test_what_was_exchanged_is_not_read(copy: Path) -> None:
    exchanged_chunks(copy)
    exchanged_slabs(copy)
    dump = open_dump(copy)
    for read in (
        lambda: dump.gram("critic"),
        lambda: dump["critic_gram"].isel(snapshot=4, minibatch=0).load(),
        lambda: dump.slab("actor", 2, 1),
        lambda: dump.dataset()["actor_grad"].isel(snapshot=2, minibatch=0, task=1).load(),
        lambda: export(copy, copy.with_suffix(".h5")),
    ):
        with pytest.raises(DumpError, match=r"cannot be read .*is sound and not what was committed here"):
            read()
    np.testing.assert_array_equal(dump.slab_values("actor", 3, 1), run.slab("actor", 3, 1))
    assert [str(damage).partition(" (")[0] for damage in verify(copy).damages[:2]] == [
        "critic_gram, snapshot 2: cannot be read",
        "actor_grad, snapshot 2, minibatch 0: every task: cannot be read",
    ]


def test_popart_arrays_cannot_be_exchanged(store: Path) -> None:
    with DumpWriter.create(store, tasks=run.TASKS, sides={"actor": 24}) as writer:
        for step in range(3):
            row = np.arange(3.0)
            writer.record(step=step, actor=run.slab("actor", step, 0), popart_mu=row, popart_sigma=row + step + 1)
    exchange(store / "popart_mu", store / "popart_sigma")
    damaged = {damage.array for damage in verify(store).damages}
    assert damaged == {"popart_mu", "popart_sigma"}
    with pytest.raises(DumpError, match="not what was committed here"):
        open_dump(store).values("popart_mu")


def test_a_manifest_is_a_lost_one_s_only_damage(copy: Path) -> None:
    a_lost_manifest(copy)
    (damage,) = verify(copy).damages
    assert str(damage) == ("stream-manifest, collect 5: stream-manifest/c.5.0 is missing or empty, though committed")
    with pytest.raises(DumpError, match=r"stream-manifest/c\.5\.0 is missing"):
        open_dump(copy).gram_stream("actor")
    with pytest.raises(DumpError, match=r"stream-manifest/c\.5\.0 is missing"):
        DumpWriter.resume(copy)
    DumpWriter.resume(copy, snapshots=4, stream=4).close()
    assert verify(copy).ok


def test_a_shortened_chain_is_found(copy: Path) -> None:
    """A header that was set back, with its checksum made to match."""
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"]["n_committed"] = 5
    root["attributes"]["checksum"] = checksum(root["attributes"])
    (copy / "zarr.json").write_text(json.dumps(root))
    assert "snapshot-manifest: its last link is not the one in the header" in map(str, verify(copy).damages)


def test_manifests_are_as_specified(complete: Path) -> None:
    """Read with Zarr and computed from the files: the checksums in order, and the chain to the header."""
    before = bytes(32)
    group = zarr.open_group(complete, mode="r", use_consolidated=False)
    manifests = group["snapshot-manifest"]
    for snapshot in range(6):
        sums = b""
        for name in sorted(group.array_keys()):
            if name.endswith("_grad"):
                for minibatch in range(run.MINIBATCHES):
                    data = (complete / name / f"c.{snapshot}.{minibatch}.0.0").read_bytes()
                    index = np.frombuffer(data[-4 - 16 * 3 : -4], "<u8").reshape(3, 2)
                    sums += b"".join(data[end - 4 : end] for end in index.sum(axis=1))
            elif group[name].metadata.dimension_names[0] == "snapshot" and name not in (
                "snapshot",
                "snapshot-manifest",
            ):
                (file,) = [f for f in (complete / name).glob("c.*") if f.name.split(".")[1] == str(snapshot)]
                sums += file.read_bytes()[-4:]
        sums += bytes(4 * group.attrs["layout"]["spare"])
        link = hashlib.sha256(before + b"snapshot" + snapshot.to_bytes(8, "little") + sums).digest()
        assert manifests[snapshot].tobytes() == before + link + sums
        before = link
    assert group.attrs["chain"]["snapshot"] == before.hex()


def unpacked(name: str, tmp_path: Path) -> Path:
    path = tmp_path / "dump.zarr"
    with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
        archive.extractall(path)
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A dump of version 1, as the code before manifests wrote it: 3 of 6 planned snapshots."""
    return unpacked("version1", tmp_path)


def test_a_dump_of_version_1_reads_and_verifies(old: Path, tmp_path: Path) -> None:
    dump = open_dump(old)
    assert (dump.n_snapshots, dump.source.header.version) == (3, 1)
    run.assert_content(dump)
    report = verify(old)
    assert report.ok
    assert report.notes == ("of version 1: nothing in it tells that its chunks and snapshots lie in their places",)
    archive = export(old, tmp_path / "old.h5", slabs=True)
    run.assert_content(open_dump(archive))
    assert verify(archive).ok


@pytest.mark.parametrize("kept", [None, 1, 0])
def test_a_dump_of_version_1_is_resumed_as_one(old: Path, kept: int | None) -> None:
    writer = DumpWriter.resume(old, snapshots=kept, stream=kept)
    for snapshot in range(3 if kept is None else kept, 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    dump = open_dump(old)
    assert (dump.n_snapshots, dump.source.header.version) == (6, 1)
    run.assert_content(dump)
    assert verify(old).ok
    assert not (old / "snapshot-manifest").exists()


@pytest.mark.parametrize("kept", [None, 1])
def test_a_dump_of_the_first_version_2_goes_on_as_it_was(tmp_path: Path, complete: Path, kept: int | None) -> None:
    """It knows neither layers nor absences, counts environment steps, and has no room for further names."""
    path = unpacked("version2", tmp_path)
    dump = open_dump(path)
    assert (dump.n_snapshots, dump.step.name, dump.has_layers("actor")) == (3, "env_steps", True)
    assert dump.present.all()
    run.assert_content(dump)
    assert verify(path).ok
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    writer = DumpWriter.resume(path, snapshots=kept, stream=kept)
    for snapshot in range(3 if kept is None else kept, 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    now = json.loads((path / "zarr.json").read_text())["attributes"]
    assert now["layout"] == root["layout"]
    run.assert_content(open_dump(path))
    assert verify(path).ok
    archive = export(path, tmp_path / "old.h5")
    assert open_dump(archive).has_layers("critic")
    assert verify(archive).ok


def test_a_strangers_dump_of_the_first_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody planned its length; it grows past what was allocated for it."""
    path = unpacked("version2-stranger", tmp_path)
    monkeypatch.setattr(header, "UNPLANNED", 3)
    with DumpWriter.resume(path) as writer:
        for step in range(3, 14):
            writer.record(step=step, t=np.full((2, 3), step, "f4"), loss=[1.0, 2.0], epoch=step)
        with pytest.raises(DumpError, match="lr cannot be added after the first record: 0 of 0 such names are taken"):
            writer.record(step=14, t=np.ones((2, 3), "f4"), loss=[1.0, 2.0], epoch=14, lr=0.1)
    dump = open_dump(path)
    np.testing.assert_array_equal(dump.values("t_grad")[:, 0, 0, 0], np.arange(14))
    assert verify(path).ok

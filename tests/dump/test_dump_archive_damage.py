"""Damaged and crafted archives: no flipped byte gives other values without a word, nothing leads out of the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.dump import recordings as run
from toppo.dump import ENV_STEPS, DumpError, DumpWriter, describe, export, open_dump, run_logs, verify
from toppo.dump.header import checksum

FIGURES = Path(__file__).parents[2] / "figures"
SHIPPED = sorted(FIGURES.glob("*/*.h5"))
BEFORE = Path(__file__).parent / "data" / "archive1.h5"
"""An archive of version 1, made before archives had digests."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with slabs, a text log and two snapshots."""
    folder = tmp_path_factory.mktemp("tiny")
    with DumpWriter.create(
        folder / "dump.zarr", tasks=["a", "b"], sides={"t": 3}, attrs={"seed": 1}, step=ENV_STEPS
    ) as writer:
        for step in range(2):
            writer.record(step=step, t=np.full((2, 3), step + 1, np.float32), loss=[1.0, 2.0])
    (folder / "config.toml").write_text("seed = 1\n")
    return export(folder, folder / "tiny.h5", slabs=True)


def everything(path: Path) -> tuple:
    """All that a reader can learn from an archive."""
    dump = open_dump(path)
    values = {name: (dump.values(name).dtype.str, dump.values(name).tobytes()) for name in dump.names}
    return dump.source.header, values, run_logs(path)


def flips_are_found(sound: Path, damaged: Path, flips: Iterable[tuple[int, int]], look: int = 1) -> None:
    """Flip bits, one byte at a time: `verify` says so or the values are the same, and reading never lies.

    Where `verify` says so, only every `look`-th byte is read as well.
    """
    before, data = everything(sound), bytearray(sound.read_bytes())
    for at, mask in flips:
        data[at] ^= mask
        damaged.write_bytes(data)
        data[at] ^= mask
        try:
            ok = verify(damaged).ok
        except DumpError:
            continue
        if not ok and at % look:
            continue
        try:
            after = everything(damaged)
        except DumpError:
            assert not ok, f"byte {at} ^ {mask}: cannot be read, and verify says sound"
            continue
        header_differs = after[0] != before[0]  # which is read with a warning
        assert after[1:] == before[1:] or header_differs, f"byte {at} ^ {mask}: other values without a word"
        assert not (ok and after != before), f"byte {at} ^ {mask}: other values, and verify says sound"


def sample(path: Path, flips: int, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8))) for _ in range(flips)]


def test_flipped_bytes_of_an_archive_are_found_or_harmless(tiny: Path, tmp_path: Path) -> None:
    flips_are_found(tiny, tmp_path / "damaged.h5", sample(tiny, 60, seed=0))


def telling(data: bytes) -> list[int]:
    """Every byte of an archive, except that one in 64 stands for the inside of a long run of zeros: unused space."""
    unused = {at for run in re.finditer(rb"\0{65,}", data) for at in range(run.start() + 32, run.end() - 32)}
    return [at for at in range(len(data)) if at not in unused or at % 64 == 0]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))  # so that several processes can share the work
def test_every_byte_of_a_tiny_archive(tiny: Path, tmp_path: Path, part: int) -> None:
    places = telling(tiny.read_bytes())[part::4]
    flips_are_found(tiny, tmp_path / "damaged.h5", ((at, 1 << at % 8) for at in places), look=20)


@pytest.mark.slow
def test_flipped_bytes_of_a_shipped_archive(tmp_path: Path) -> None:
    shipped = FIGURES / "data" / "mean-ln-first.h5"
    flips_are_found(shipped, tmp_path / "damaged.h5", sample(shipped, 300, seed=1))


@pytest.mark.parametrize("archive", SHIPPED, ids=lambda path: path.stem)
def test_shipped_archives_carry_digests(archive: Path, tmp_path: Path) -> None:
    report = verify(archive)
    assert report.ok
    assert not any("digests" in note for note in report.notes)
    if archive.stem == "mean-ln-first":
        flips_are_found(archive, tmp_path / "damaged.h5", sample(archive, 5, seed=3))


@pytest.mark.slow
def test_no_flip_of_an_archive_of_before_is_a_traceback(tmp_path: Path) -> None:
    """It has no digests, so other values can go unnoticed. Each is read, or refused in one line."""
    sound, damaged = BEFORE, tmp_path / "damaged.h5"
    data = bytearray(sound.read_bytes())
    for at, mask in [(547671, 8), *sample(sound, 200, seed=2)]:
        data[at] ^= mask
        damaged.write_bytes(data)
        data[at] ^= mask
        try:
            verify(damaged)
            describe(open_dump(damaged))
            everything(damaged)
        except DumpError as error:
            assert "\n" not in str(error)


def test_an_archive_of_before_stays_readable(tmp_path: Path) -> None:
    archive = BEFORE
    report = verify(archive)
    assert report.ok
    note = "carries no digests of its arrays, as archives of before: export it again to add them"
    assert note in report.notes
    again = export(archive, tmp_path / "again.h5")
    assert note not in verify(again).notes
    old, new = open_dump(archive), open_dump(again)
    assert old.names == new.names
    for name in old.names:
        np.testing.assert_array_equal(new.values(name), old.values(name))
    assert run_logs(again) == run_logs(archive)


def test_fill_values_show_what_is_lost(tiny: Path) -> None:
    with h5py.File(tiny) as file:
        assert np.isnan(file["t_gram"].fillvalue)
        assert np.isnan(file["t_grad"].fillvalue)
        assert (file["env_steps"].fillvalue, file["t_finite"].fillvalue) == (-1, -1)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny, tmp_path / "copy.h5"))


def test_values_that_were_changed_are_not_read(copy: Path) -> None:
    """With HDF5's own checksums made to match, as any tool that edits the file does."""
    with h5py.File(copy, "r+") as file:
        file["t_gram"][1, 0, 0, 1] = 7
        file["t_grad"][0, 0, 1, 2] = 7
        file["task"][0] = "c"
        file["run/config.toml"][7] = ord("2")
    dump = open_dump(copy)
    for name in ("t_gram", "t_grad", "task"):
        with pytest.raises(DumpError, match=f"{name} cannot be read .*is not what was archived: it does not match"):
            dump.values(name)
    assert dump.array("t_gram").isel(snapshot=0).values.shape == (1, 2, 2)
    assert dump.source.read("t_grad", (0, 0, slice(0, 1), slice(1, 3))).shape == (1, 2)
    with pytest.raises(DumpError, match="does not match its digest"):
        dump.source.read("t_grad", (0, 0, slice(1, 2), slice(0, 1)))
    with pytest.raises(DumpError, match="they are not what was archived"):
        run_logs(copy)
    found = {(damage.array, damage.snapshot, damage.task) for damage in verify(copy).damages}
    assert {("t_gram", 1, None), ("t_grad", 0, "b"), ("task", None, None), ("run", None, None)} <= found


def test_what_an_archive_repeats_is_compared(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file.attrs["seed"] = 2
        file["t_gram"].attrs["units"] = "1"
        file["parameters/t/offset"][0] = 1
        file["t_param"][0] = 5
        file["extra"] = 1
    assert [str(damage) for damage in verify(copy).damages] == [
        "extra: is in no archive",
        "parameters/t/offset: is not as in the header",
        "t_param: does not count from 0",
        "t_gram: its units or description are not those of the header",
        "attributes of the file: are not as in the header",
    ]


def test_exchanged_arrays_are_found(tmp_path: Path, complete: Path) -> None:
    path = export(complete, tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file.move("actor_gram", "x")
        file.move("critic_gram", "actor_gram")
        file.move("x", "critic_gram")
    for side in ("actor", "critic"):
        with pytest.raises(DumpError, match="does not match its digest"):
            open_dump(path).gram(side)


def outside(file: h5py.File, name: str, secret: Path) -> None:
    """Let an array's values lie in another file."""
    array = file[name]
    shape, dtype = array.shape, array.dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def soft(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.SoftLink("/t_finite")


def external(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(str(secret), "/x")


def virtual(file: h5py.File, name: str, secret: Path) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(secret), "x", shape)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("lead", [outside, soft, external, virtual])
@pytest.mark.parametrize("name", ["env_steps", "run/config.toml"])
def test_nothing_outside_an_archive_is_read(copy: Path, tmp_path: Path, lead, name: str) -> None:
    """An export of such an archive would copy the other file along. Archives without digests are guarded too."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the secret of somebody else " * 9)
    with h5py.File(copy, "r+") as file:
        record = json.loads(file["header"].asstr()[()])
        del record["digests"], record["logs"], record["chain"], file["header"]
        record["schema_version"] = 1
        file["header"] = json.dumps(record | {"checksum": checksum(record)})
        lead(file, name, secret)
    with pytest.raises(DumpError, match=r"(lie in another file|is a link to another place), as (those of )?no archive"):
        export(copy, tmp_path / "again.h5")
    assert not (tmp_path / "again.h5").exists()
    assert not verify(copy).ok


def test_a_header_that_is_a_link(copy: Path, tmp_path: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file.move("header", "h")
        file["header"] = h5py.SoftLink("/h")
    with pytest.raises(DumpError, match="header is a link to another place"):
        open_dump(copy)


def test_other_kinds_of_objects(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["loss"], file["env_steps"], file["collect"], file["t_finite"]
        file.create_group("loss")
        file["env_steps"] = [0.0, 1.0]
        file["collect"] = [0]
        file["t_finite"] = ["a"]
    damages = {damage.array: damage.what for damage in verify(copy).damages}
    assert "is not a dataset" in damages["loss"]
    assert "holds float64, expected i8" in damages["env_steps"]
    assert "has shape (1,), expected (2,)" in damages["collect"]
    assert "expected i1" in damages["t_finite"]


def test_an_array_that_claims_terabytes_is_refused_before_memory_is_taken(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        record = json.loads(file["header"].asstr()[()])
        record["layout"]["sides"]["t"] = [["all", [2**38], 0]]
        del file["header"], file["t_grad"]
        file["header"] = json.dumps(record | {"checksum": checksum(record)})
        file.create_dataset("t_grad", (2, 1, 2, 2**38), "f4", chunks=(1, 1, 1, 1024), compression="gzip")
    with pytest.raises(DumpError, match="claims more values than the file holds"):
        open_dump(copy).slab_values("t", 0, 0)
    assert "t_grad" in {damage.array for damage in verify(copy).damages}


def test_rounded_archives_and_streams_have_digests(complete: Path, tmp_path: Path) -> None:
    path = export(complete, tmp_path / "run.h5", slabs=True, keepbits=8)
    assert verify(path).ok
    with h5py.File(path) as file:
        digests = json.loads(file["header"].asstr()[()])["digests"]
    assert len(digests["actor_grad"]) == 64 * 6 * run.MINIBATCHES * 3
    assert len(digests["critic_gram_stream"]) == 64 * 6
    assert len(digests["task"]) == 64

"""Verification: a sound dump passes. Every flipped byte is found, or changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, chunks, gram, manifest, open_dump, verify
from toppo.dump.header import checksum


@pytest.fixture
def copy(complete: Path, tmp_path: Path) -> Path:
    path = tmp_path / "dump.zarr"
    shutil.copytree(complete, path)
    return path


def everything(path: Path) -> tuple:
    """All that a reader can learn from a dump."""
    dump = open_dump(path)
    return dump.source.header, {name: dump.values(name).tobytes() for name in dump.names}


def test_a_sound_dump(complete: Path) -> None:
    steps = []
    report = verify(complete, progress=lambda done, total: steps.append((done, total)))
    assert report.ok
    assert report.notes == ()
    assert (report.slabs, report.gram_error) == (24, 0)
    assert steps == [(n, 7) for n in range(1, 8)]
    assert report.lines() == [
        f"{complete}: sound; 6 snapshots, 6 stream collects, "
        "24 Grams recomputed from slabs (worst difference 0.0e+00, tolerance 1.0e-05)"
    ]


def flip_and_check(complete: Path, folder: Path, flips: int, seed: int) -> None:
    """Flip one bit or all bits of one byte anywhere in a dump. Do so `flips` times."""
    rng = np.random.default_rng(seed)
    before = everything(complete)
    path = folder / "dump.zarr"
    shutil.copytree(complete, path)
    keys = sorted(run.tree(path))
    found = 0
    for _ in range(flips):
        file = path / keys[rng.integers(len(keys))]
        sound = file.read_bytes()
        at = int(rng.integers(len(sound)))
        mask = 0xFF if rng.random() < 0.3 else 1 << int(rng.integers(8))
        file.write_bytes(sound[:at] + bytes([sound[at] ^ mask]) + sound[at + 1 :])
        try:
            ok = verify(path).ok
        except DumpError:
            ok = False
        if ok:
            assert everything(path) == before, (
                f"byte {at} of {file.relative_to(path)} ^ {mask}: not found, not harmless"
            )
        found += not ok
        file.write_bytes(sound)
    assert found > 0.8 * flips


def test_flipped_bytes_are_found_or_harmless(complete: Path, tmp_path: Path) -> None:
    flip_and_check(complete, tmp_path, flips=120, seed=0)


@pytest.mark.slow
def test_many_flipped_bytes(complete: Path, tmp_path: Path) -> None:
    flip_and_check(complete, tmp_path, flips=1500, seed=1)


def test_every_byte_of_a_metadata_document(complete: Path, tmp_path: Path) -> None:
    """The root document of a run with one snapshot, each byte in turn (every 31st, with another bit each)."""
    path = tmp_path / "dump.zarr"
    with DumpWriter.create(path, tasks=["a", "b"], sides={"t": 3}, snapshots=1) as writer:
        writer.record(step=0, t=np.ones((2, 3), np.float32))
    before = everything(path)
    sound = (path / "zarr.json").read_bytes()
    for at in range(0, len(sound), 31):
        (path / "zarr.json").write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        try:
            ok = verify(path).ok
        except DumpError:
            continue
        if ok:
            assert everything(path) == before, f"byte {at}: {sound[at - 20 : at + 20]!r}"


def test_damage_is_named(copy: Path) -> None:
    """By array, snapshot, minibatch and task."""
    shard = copy / "critic_grad" / "c.3.1.0.0"
    data = bytearray(shard.read_bytes())
    index = np.frombuffer(data[-4 - 16 * 3 : -4], "<u8").reshape(3, 2)
    data[int(index[1, 0]) + 20] ^= 1
    shard.write_bytes(data)
    (copy / "actor_grad" / "c.0.0.0.0").unlink()
    (copy / "loss" / "c.2.0.0").unlink()
    (copy / "actor_gram_stream" / "c.4.0.0.0").unlink()
    names = [str(damage).partition(" (")[0] for damage in verify(copy).damages]
    assert names == [
        "actor_gram_stream, collect 4: actor_gram_stream/c.4.0.0.0 is missing or empty, though committed",
        "actor_grad, snapshot 0, minibatch 0: every task: actor_grad/c.0.0.0.0 is missing or empty, though committed",
        "loss, snapshot 2: loss/c.2.0.0 is missing or empty, though committed",
        "critic_grad, snapshot 3, minibatch 1, task push: cannot be read",
    ]


def rewrite(path: Path, name: str, key: str, values: np.ndarray) -> None:
    """Replace a chunk by another that is well-formed, in its manifest too, so that only its content is wrong."""
    slab = name.endswith("_grad")
    if slab:
        parts, sums = chunks.encode_slab(values, None)
        encoded = b"".join(parts)
    else:
        encoded = chunks.encode(values, str(values.dtype))
        sums = chunks.checksum(encoded)
    (path / name / key).write_bytes(encoded)
    header = open_dump(path).source.header
    at = manifest.positions(header.layout).get(name)
    if at is None:
        return
    step, minibatch = (int(part) for part in (*key.split("."), "0")[1:3])
    at += minibatch * len(sums) if slab else 0
    # the manifest of the step, and every one after it
    before = None
    root = json.loads((path / "zarr.json").read_text())
    for later in range(step, header.n_committed):
        file = path / "snapshot-manifest" / f"c.{later}.0"
        content = file.read_bytes()[:-4]
        own = content[64:]
        if later == step:
            own = content[64:at] + sums + content[at + len(sums) :]
        content = manifest.make("snapshot", later, before or content[:32], own)
        file.write_bytes(chunks.encode(np.frombuffer(content, np.uint8), "u1"))
        before = manifest.link(content)
    root["attributes"]["chain"]["snapshot"] = before.hex()
    root["attributes"]["checksum"] = checksum(root["attributes"])
    (path / "zarr.json").write_text(json.dumps(root))


def test_a_slab_that_is_not_its_grams(copy: Path) -> None:
    slab = run.slab("actor", 1, 0)
    slab[2] += 0.5
    rewrite(copy, "actor_grad", "c.1.0.0.0", slab)
    (damage,) = verify(copy).damages
    assert (damage.array, damage.snapshot, damage.minibatch) == ("actor_gram", 1, 0)
    assert "differs from the Gram of the slab by" in damage.what
    assert "drawer-open" in damage.what


def test_a_gram_within_tolerance_passes_and_beyond_fails(copy: Path) -> None:
    for factor, ok in ((1 + 5e-6, True), (1 + 5e-5, False), (np.nan, False)):
        grams = np.stack([gram(run.slab("critic", 0, m)) for m in range(2)])
        grams[1, 0, 0] *= factor
        rewrite(copy, "critic_gram", "c.0.0.0.0", grams)
        assert verify(copy).ok is ok


def test_holes_and_wrong_flags(copy: Path) -> None:
    slab = run.slab("actor", 5, 1)
    slab[0, 3] = np.nan
    rewrite(copy, "actor_grad", "c.5.1.0.0", slab)
    rewrite(copy, "critic_finite", "c.2.0.0", np.array([[1, 0, 1], [1, 1, 2]], np.int8))
    what = [str(damage) for damage in verify(copy).damages]
    assert what == [
        "critic_grad, snapshot 2, minibatch 0, task push: finite, though flagged as not",
        "critic_finite, snapshot 2, minibatch 1, task drawer-open: flag is 2",
        "critic_grad, snapshot 2, minibatch 1, task drawer-open: finite, though flagged as not",
        "actor_grad, snapshot 5, minibatch 1, task reach: not finite, though recorded as finite: a hole",
    ]


def test_coordinates_that_contradict_the_header(copy: Path) -> None:
    rewrite(copy, "snapshot", "c.0", np.array([0, 1, 2, 3, 5, 4]))
    (damage,) = verify(copy).damages
    assert str(damage) == "snapshot: does not hold the header's snapshot values"


def test_counts_that_contradict_the_arrays(copy: Path) -> None:
    """A header that claims more than was written, with its checksum made to match."""
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"] |= {"n_committed": 7, "n_planned": 7}
    root["attributes"]["checksum"] = checksum(root["attributes"])
    (copy / "zarr.json").write_text(json.dumps(root))
    report = verify(copy)
    assert {d.snapshot for d in report.damages if "is missing or empty" in d.what} == {6}
    assert any("length 6 does not fit the 7 committed" in d.what for d in report.damages)


def test_an_edited_header_is_read_with_a_warning_and_is_damage(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"]["attrs"]["seed"] = 8
    (copy / "zarr.json").write_text(json.dumps(root))
    assert open_dump(copy).attrs["seed"] == 8
    assert "its header was changed or damaged (checksum); do not trust it, see `toppo-diag verify`" in caplog.text
    assert [str(damage) for damage in verify(copy).damages] == ["zarr.json: the header does not match its checksum"]


def test_damaged_metadata_is_named_and_not_built_upon(copy: Path) -> None:
    for name, text in (
        ("loss", b"{}"),
        ("critic_gram", (copy / "actor_gram" / "zarr.json").read_bytes()[:-2] + b"   }"),
    ):
        (copy / name / "zarr.json").write_bytes(text)
    (copy / "order" / "zarr.json").unlink()
    damages = verify(copy).damages
    assert [str(damage) for damage in damages if "zarr.json" in damage.what] == [
        "loss: its zarr.json does not match its checksum",
        "order: its zarr.json is missing",
    ]
    with pytest.raises(
        DumpError, match=r"cannot resume, loss: its zarr\.json does not match its checksum; restore its"
    ):
        DumpWriter.resume(copy)


def test_leftovers_of_a_crash_are_a_note(copy: Path) -> None:
    (copy / "loss" / "c.9.0.0").write_bytes(b"torn")
    (copy / "loss" / "c.9.0.0.1f.partial").write_bytes(b"torn")
    report = verify(copy)
    assert report.ok
    assert report.notes == (
        "2 files belong to nothing committed: they are being written, or a crash left them (resume clears them)",
    )

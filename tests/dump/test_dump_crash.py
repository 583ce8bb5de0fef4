"""A crash, a full disk or a reader beside the writer does nothing to what is committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, files, open_dump, verify

SNAPSHOTS = 8
ROOT = Path(__file__).parents[2]


class Killer:
    """Runs writers in processes of their own and kills them."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.dump.crash_writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def write(self, path: Path, event: int | None = None, delay: float | None = None) -> int:
        """Exit code of a process that writes `path`: 0 if it came to its end, -9 if it was killed before."""
        order = {"path": str(path), "snapshots": SNAPSHOTS, "event": event, "delay": delay}
        assert self._server.stdin and self._server.stdout
        print(json.dumps(order), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    def stop(self) -> None:
        """End the server."""
        self._server.communicate(timeout=30)


@pytest.fixture
def killer() -> Iterator[Killer]:
    server = Killer()
    yield server
    server.stop()


class Reader(threading.Thread):
    """Opens a dump again and again and checks all that is visible. It keeps the first thing that is wrong."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.path: Path | None = None
        self.wrong: BaseException | None = None
        self.read = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Read until `end`."""
        while not self._ended.wait(0.01) and self.wrong is None:
            try:
                if self.path is not None and self.path.exists():
                    dump = open_dump(self.path)
                    run.assert_content(dump, first=max(0, dump.n_snapshots - 2))
                    self.read += dump.n_snapshots
            except BaseException as error:
                self.wrong = error

    def end(self) -> None:
        """Stop, and raise what was wrong."""
        self._ended.set()
        self.join(30)
        if self.wrong is not None:
            raise self.wrong


def kill_and_resume(killer: Killer, folder: Path, kills: int, seed: int) -> None:
    """Write runs to their end, and kill `kills` writers at random moments. Check the dump after each of them."""
    rng = np.random.default_rng(seed)
    run.record_run(folder / "reference.zarr", SNAPSHOTS)
    reference = run.tree(folder / "reference.zarr")
    reader = Reader()
    reader.start()
    killed = runs = 0
    while killed < kills:
        store = folder / f"run{runs}.zarr"
        reader.path = store
        committed = 0
        while True:
            by_clock = rng.random() < 0.3
            event, delay = int(rng.integers(1, 150)), float(rng.uniform(0, 0.25))
            code = killer.write(store, None if by_clock else event, delay if by_clock else None)
            assert code in (0, -9)
            killed += code == -9
            if store.exists():
                dump = open_dump(store)
                assert dump.n_snapshots >= committed
                committed = dump.n_snapshots
                run.assert_content(dump)
                assert verify(store).damages == ()
            if code == 0:
                break
        assert open_dump(store).complete
        assert run.tree(store) == reference
        runs += 1
    reader.end()
    assert reader.read > 0


def test_kill_9_loses_nothing_committed(killer: Killer, tmp_path: Path) -> None:
    kill_and_resume(killer, tmp_path, kills=60, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_kill_9_many_times(killer: Killer, tmp_path: Path, seed: int) -> None:
    kill_and_resume(killer, tmp_path, kills=300, seed=seed)


@pytest.mark.slow
def test_kill_9_before_every_file_operation(killer: Killer, tmp_path: Path) -> None:
    run.record_run(tmp_path / "reference.zarr", SNAPSHOTS)
    reference = run.tree(tmp_path / "reference.zarr")
    event, code = 0, -9
    while code == -9:
        event += 1
        store = tmp_path / f"{event}.zarr"
        code = killer.write(store, event)
        if store.exists():
            run.assert_content(open_dump(store))
        assert killer.write(store) == 0
        assert run.tree(store) == reference
    assert event > 300


def test_a_killed_rollback_is_rolled_back_again(tmp_path: Path) -> None:
    """A complete dump, shorter than planned, is resumed at an earlier point. The resuming is interrupted anywhere."""
    complete = tmp_path / "complete.zarr"
    with run.create(complete, 10) as writer:
        for snapshot in range(6):
            run.record_snapshot(writer, snapshot)
    operations = ("write", "replace", "delete")
    point = 0
    while True:
        store = tmp_path / f"{point}.zarr"
        for name, content in run.tree(complete).items():
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(content)
        left = point

        def interrupted(real):
            def call(*arguments):
                nonlocal left
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                return real(*arguments)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in operations:
                patch.setattr(files.LocalFiles, name, interrupted(getattr(files.LocalFiles, name)))
            try:
                DumpWriter.resume(store, snapshots=2, stream=2).abandon()
                ended = True
            except KeyboardInterrupt:
                ended = False
        dump = open_dump(store)
        assert dump.n_snapshots == (6 if point == 0 else 2)
        run.assert_content(dump)
        assert verify(store).ok
        writer = DumpWriter.resume(store, snapshots=2, stream=2)
        for snapshot in range(2, 6):
            run.record_snapshot(writer, snapshot)
        writer.close()
        assert run.tree(store) == run.tree(complete)
        if ended:
            break
        point += 5
    assert point > 50


@pytest.mark.parametrize("point", range(0, 110, 10))
def test_disk_full_at_any_write(complete: Path, store: Path, monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    """A write fails half done, as on a full disk. Then there is space again."""
    writer = run.create(store)
    left = point

    class Full:
        """A file whose only write stops half done."""

        def __init__(self, file: BinaryIO) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            self._file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

        def writelines(self, parts: list[bytes]) -> None:
            self.write(b"".join(parts))

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

    real = Path.open

    def open_full(path: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        nonlocal left
        file = real(path, mode, *arguments, **options)
        if not set(mode) & set("wx"):
            return file
        left -= 1
        return Full(file) if left == -1 else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(DumpError, match=r"No space left on device.*free some space and resume"):
            for snapshot in range(6):
                run.record_snapshot(writer, snapshot)
            writer.flush()
        writer.abandon()
    kept = writer.n_committed, writer.stream_committed
    dump = open_dump(store)
    assert (dump.n_snapshots, dump.n_stream) == kept
    run.assert_content(dump)
    writer = DumpWriter.resume(store, snapshots=kept[0], stream=kept[0])
    for snapshot in range(kept[0], 6):
        run.record_snapshot(writer, snapshot)
    writer.close()
    assert run.tree(store) == run.tree(complete)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """Training stops with a clear line. Committed snapshots and the checkpoint are intact. Given space, it goes on."""
    store, checkpoint, P = small_disk / "dump.zarr", small_disk / "checkpoint", 12_000
    slabs = np.random.default_rng(0).standard_normal((20, 2, P)).astype(np.float32)
    writer = DumpWriter.create(store, tasks=["a", "b"], sides={"trunk": P}, snapshots=20)

    def save(step: int) -> None:
        new = checkpoint.with_suffix(".new")
        new.write_text(str(step + 1))
        new.replace(checkpoint)

    with pytest.raises(DumpError, match=r"writing failed .*No space left on device.* free some space and resume$"):
        for step in range(20):
            writer.record(step=step, trunk=slabs[step], loss=[1.0, 2.0])
            writer.call_after_commit(lambda step=step: save(step))
        writer.flush()
    writer.abandon()
    kept = int(checkpoint.read_text())
    assert 0 < kept <= open_dump(store).n_snapshots < 20
    assert verify(store).damages == ()
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    with DumpWriter.resume(store, snapshots=kept) as writer:
        for step in range(kept, 20):
            writer.record(step=step, trunk=slabs[step], loss=[1.0, 2.0])
    np.testing.assert_array_equal(open_dump(store).values("trunk_grad")[:, 0], slabs)
    assert verify(store).ok


def test_a_reader_beside_the_writer(store: Path) -> None:
    """Whatever a reader sees is whole."""
    reader = Reader()
    reader.path = store
    reader.start()
    with run.create(store, 40) as writer:
        for snapshot in range(40):
            run.record_snapshot(writer, snapshot)
    run.assert_content(open_dump(store))
    reader.end()

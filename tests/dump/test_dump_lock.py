"""One writer at a time, whichever way the other one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, export, lock, open_dump, verify

BUSY = "another process is writing it; wait for it or stop it"
ROOT = Path(__file__).parents[2]

WRITER = """
import os, sys
from tests.dump import recordings as run
from toppo.dump import DumpWriter
writer = run.create(sys.argv[1])
run.record_snapshot(writer, 0)
writer.flush()
if sys.argv[2] == "forks":
    child = os.fork()
    if child == 0:
        print("ready", flush=True)  # from the child: it has let go of the lock by now
        os.close(1)
        os.read(0, 1)  # until the test lets go
        os._exit(0)
else:
    print("ready", flush=True)
sys.stdin.read()
"""


class Other:
    """A writer in another process, which can be killed."""

    def __init__(self, store: Path, how: str = "alone") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it as the system does when memory is short."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL

    def end(self) -> None:
        """Let go of its children too."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(params=["alone", "forks"])
def other(store: Path, request: pytest.FixtureRequest) -> Iterator[Other]:
    if request.param == "forks" and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    process = Other(store, request.param)
    yield process
    process.end()


def locks(store: Path) -> list[str]:
    return [path.name for path in store.parent.iterdir() if path.name != store.name]


def test_another_process_is_kept_out_until_it_is_killed(other: Other, store: Path) -> None:
    """Also while a child that it forked lives on."""
    with pytest.raises(DumpError, match=BUSY):
        DumpWriter.resume(store)
    other.kill()
    writer = DumpWriter.resume(store)
    assert writer.n_committed == 1
    writer.abandon()
    assert locks(store) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("abandons", [False, True])
def test_a_forked_child_that_ends_does_not_end_the_lock(store: Path, abandons: bool) -> None:
    writer = run.create(store)
    child = os.fork()
    if child == 0:
        if abandons:
            writer._lock.release()
        del writer
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert locks(store) == [".dump.zarr.lock"]
    code = "import sys; from toppo.dump import DumpWriter; DumpWriter.resume(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, cwd=ROOT)
    assert BUSY in result.stderr
    writer.abandon()


def test_a_writer_of_this_process_gives_way(store: Path) -> None:
    """It belongs to a cell that failed or was forgotten. What it recorded stays, and it says why it takes no more."""
    writer = run.create(store)
    link = store.with_name("link.zarr")
    link.symlink_to(store)
    for n, path in enumerate((store, f"file://{store}", link)):
        run.record_snapshot(writer, n)
        again = DumpWriter.resume(path)
        assert again.n_committed == n + 1
        with pytest.raises(DumpError, match="this writer was ended by another one of this process"):
            run.record_snapshot(writer, n + 1)
        writer.abandon()  # does no harm
        writer = again
    thread = threading.Thread(target=writer.close)
    thread.start()
    thread.join()
    assert open_dump(store).complete
    DumpWriter.resume(link).abandon()
    assert locks(store) == ["link.zarr"]


def test_two_writers_do_not_create_one_dump(store: Path) -> None:
    store.parent.mkdir()
    held = lock.WriterLock(store)
    with pytest.raises(DumpError, match="already there; resume it or choose another path"):
        run.create(store)
    assert locks(store) == [".dump.zarr.lock"]
    held.release()
    held.release()
    run.create(store).abandon()


def test_a_failed_start_gives_the_lock_back(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            run.create(store)
    run.record_run(store, snapshots=1)
    with pytest.raises(DumpError, match="cannot resume at 5 snapshots"):
        DumpWriter.resume(store, snapshots=5)
    DumpWriter.resume(store).close()


def test_the_lock_is_no_part_of_the_dump(store: Path, tmp_path: Path) -> None:
    writer = run.create(store)
    run.record_snapshot(writer, 0)
    writer.flush()
    assert locks(store) == [".dump.zarr.lock"]
    report = verify(store)
    assert report.damages == ()
    assert report.notes == ("not complete: the run is being written or was interrupted",)
    assert b".lock" not in export(store, tmp_path / "run.h5").read_bytes()
    writer.close()
    assert locks(store) == []
    assert verify(store).notes == ()


def test_a_stale_lock_file_is_in_nobodys_way(store: Path) -> None:
    store.parent.mkdir()
    (store.parent / ".dump.zarr.lock").write_text("")
    run.record_run(store, snapshots=1)
    assert locks(store) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A complete dump on a file system that nobody can write."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mount.stderr.strip()}")
    try:
        run.record_run(place / "dump.zarr")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        yield place / "dump.zarr"
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_place_that_cannot_be_written_is_read(read_only: Path, tmp_path: Path) -> None:
    run.assert_content(open_dump(read_only))
    assert verify(read_only).ok
    assert open_dump(export(read_only, tmp_path / "run.h5")).complete
    with pytest.raises(OSError, match="Read-only file system"):
        DumpWriter.resume(read_only)

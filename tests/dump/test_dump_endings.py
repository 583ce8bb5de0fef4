"""How a recording begins and ends where nobody is careful: together, twice, without a close, on a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriteError, DumpWriter, open_dump, verify
from toppo.dump.files import LocalFiles

ROOT = Path(__file__).parents[2]

STARTER = """
import json, sys
import numpy as np
from toppo.dump import DumpError, DumpWriter
J = np.full((2, 3), int(sys.argv[2]), np.float32)
sys.stdin.readline()  # all begin together
try:
    with DumpWriter.create(sys.argv[1], tasks=["a", "b"], sides={"t": 3}) as writer:
        for step in range(5):
            writer.record(step=step, t=J)
    print(json.dumps("recorded"))
except DumpError as error:
    print(json.dumps(str(error)))
"""


def test_eight_processes_that_start_together(tmp_path: Path) -> None:
    """One of them records. Each other one is told that the dump is there, and the dump is whole."""
    start = [sys.executable, "-c", STARTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for n in range(3):
        path = tmp_path / f"run{n}.zarr"
        if n == 1:
            path.mkdir()
        ones = [subprocess.Popen([*start, str(path), str(k)], cwd=ROOT, text=True, **pipes) for k in range(8)]
        for one in ones:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        outputs = [one.communicate() for one in ones]
        assert [err for _, err in outputs] == [""] * 8
        said = [json.loads(out) for out, _ in outputs]
        assert said.count("recorded") == 1
        assert set(said) == {"recorded", f"{path}: already there; resume it or choose another path"}
        assert verify(path).ok
        np.testing.assert_array_equal(open_dump(path).values("t_grad"), np.full((5, 1, 2, 3), said.index("recorded")))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run0.zarr", "run1.zarr", "run2.zarr"]


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_an_empty_directory_is_free(store: Path, tmp_path: Path, kind: str) -> None:
    store.parent.mkdir(exist_ok=True)
    if kind == "link":
        (tmp_path / "disk").mkdir()
        store.symlink_to(tmp_path / "disk", target_is_directory=True)
    else:
        store.mkdir()
    run.record_run(store, snapshots=2)
    run.assert_content(open_dump(store))
    assert store.is_symlink() == (kind == "link")


@pytest.mark.parametrize("kind", ["file", "dangling link", "directory with a file"])
def test_whatever_else_is_there_stays(store: Path, kind: str) -> None:
    store.parent.mkdir(exist_ok=True)
    if kind == "dangling link":
        store.symlink_to(store.with_name("nowhere"))
    elif kind == "file":
        store.write_text("mine")
    else:
        store.mkdir()
        (store / "mine").write_text("mine")
    with pytest.raises(DumpError, match="already there; resume it or choose another path"):
        run.create(store)
    assert [path.name for path in store.parent.iterdir()] == [store.name]


UNCLOSED = """
import sys
import numpy as np
from toppo.dump import DumpWriter
writer = DumpWriter.create(sys.argv[1], tasks=["a", "b"], sides={"t": 3}, commit_every=float(sys.argv[2]))
for step in range(20):
    writer.record(step=step, t=np.full((2, 3), step, np.float32))
if sys.argv[3] == "raises":
    raise KeyboardInterrupt
if sys.argv[3] == "exits":
    sys.exit(3)
"""


@pytest.mark.parametrize("commit_every", ["0", "3600"])
@pytest.mark.parametrize("how", ["ends", "raises", "exits"])
def test_a_script_that_closes_nothing_keeps_every_record(store: Path, commit_every: str, how: str) -> None:
    command = [sys.executable, "-c", UNCLOSED, str(store), commit_every, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) == (how == "ends")
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.values("t_grad")[:, 0, 0, 0], np.arange(20))
    assert not dump.complete
    assert verify(store).damages == ()
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_a_cell_that_failed_is_run_again(store: Path) -> None:
    """Its writer is still referred to, from the traceback or a global. That keeps nobody out, and loses nothing."""

    def cell(writer: DumpWriter, steps: range) -> None:
        for step in steps:
            writer.record(step=step, t=np.full((2, 3), step, np.float32))
        raise KeyboardInterrupt

    first = DumpWriter.create(store, tasks=["a", "b"], sides={"t": 3})
    with pytest.raises(KeyboardInterrupt):
        cell(first, range(5))
    second = DumpWriter.resume(store, step=3)
    with pytest.raises(KeyboardInterrupt), second:
        cell(second, range(3, 9))
    with pytest.raises(DumpError, match=f"{store}: this writer was ended by another one of this process"):
        first.record(step=5, t=np.ones((2, 3)))
    with pytest.raises(DumpError, match="this writer has ended; resume the dump to add to it"):
        second.record(step=9, t=np.ones((2, 3)))
    assert open_dump(store).steps.tolist() == list(range(9))
    DumpWriter.resume(store).close()


def test_a_full_disk_is_a_state_of_the_writer(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop catches it once and goes on. What was committed can be read and resumed."""
    writer = DumpWriter.create(store, tasks=["a", "b"], sides={"t": 3}, commit_every=3600)
    J = np.ones((2, 3), np.float32)
    for step in range(3):
        writer.record(step=step, t=J)
    writer._background._jobs.join()
    write = LocalFiles.write

    def full(self: LocalFiles, key: str, parts: list[bytes]) -> None:
        if key.startswith("t_gram"):
            raise OSError(28, "No space left on device")
        write(self, key, parts)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", full)
        writer.record(step=3, t=J)
        with pytest.raises(DumpWriteError, match=r"No space left on device.*free some space and resume"):
            writer.flush()
        for _ in range(2):
            with pytest.raises(DumpWriteError):
                writer.record(step=4, t=J)
        writer.abandon()
    assert open_dump(store).n_snapshots == 3  # written before the disk was full
    with DumpWriter.resume(store) as writer:
        writer.record(step=4, t=J)
    assert open_dump(store).steps.tolist() == [0, 1, 2, 4]
    assert verify(store).ok


def small(store: Path) -> DumpWriter:
    """A writer with two records."""
    writer = DumpWriter.create(store, tasks=["a", "b"], sides={"t": 3}, attrs={"seed": 1})
    for step in range(2):
        writer.record(step=step, t=np.ones((2, 3), np.float32))
    return writer


FLUSHES = """
import sys
import numpy as np
from toppo.dump import DumpWriter
writer = DumpWriter.create(sys.argv[1], tasks=["a", "b"], sides={"t": 3})
writer.record(step=0, t=np.ones((2, 3), np.float32))
getattr(writer, sys.argv[2])()
writer.flush()
writer.close()
writer.flush()
"""


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_a_flush_after_the_end_returns(store: Path, end: str) -> None:
    # in a process of its own, because a fault would wait for ever
    subprocess.run([sys.executable, "-c", FLUSHES, str(store), end], cwd=ROOT, timeout=60, check=True)
    assert open_dump(store).steps.tolist() == [0]


FORKED = """
import os, sys
import numpy as np
from toppo.dump import DumpError, DumpWriter
J = np.ones((2, 3), np.float32)
writer = DumpWriter.create(sys.argv[1], tasks=["a", "b"], sides={"t": 3})
writer.record(step=0, t=J)
child = os.fork()
if child == 0:
    for call in (writer.flush, lambda: writer.record(step=1, t=J), lambda: writer.note(x=1), writer.close):
        try:
            call()
        except DumpError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
writer.record(step=2, t=J)
writer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_is_told_and_waits_for_nothing(store: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(store)]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=True, capture_output=True, text=True)
    assert (
        done.stdout.splitlines()
        == [f"{store}: this process was forked from the one that writes; record in that one"] * 4
    )
    assert open_dump(store).steps.tolist() == [0, 2] and open_dump(store).complete
    assert verify(store).ok


@pytest.mark.parametrize("call", ["a name that is new", "note", "close"])
def test_a_full_disk_on_the_thread_of_the_caller(store: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It is the same error, and the same state of the writer, as in the background."""
    writer = small(store)
    writer.flush()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "replace", full)
        with pytest.raises(DumpWriteError, match=r"No space left on device.*free some space and resume"):
            if call == "close":
                writer.close()
            elif call == "note":
                writer.note(last=1)
            else:
                writer.record(step=2, t=np.ones((2, 3)), more=1.0)
        for again in (writer.flush, writer.check):
            with pytest.raises(DumpWriteError):
                again()
        writer.abandon()
    assert open_dump(store).n_snapshots == 2
    with DumpWriter.resume(store) as writer:
        writer.record(step=2, t=np.ones((2, 3)), more=1.0)
    assert open_dump(store).values("more")[:, 0].tolist()[2:] == [1.0]
    assert verify(store).ok


def test_attributes_are_noted_while_a_run_goes_on(store: Path) -> None:
    writer = small(store)
    writer.note(last=7, seed=2)
    assert dict(open_dump(store).attrs) == {"seed": 2, "last": 7}
    assert open_dump(store).n_snapshots == 2  # what was recorded before is committed with it
    with pytest.raises(DumpError, match="JSON"):
        writer.note(last=object())
    writer.record(step=2, t=np.ones((2, 3)))
    writer.close()
    with DumpWriter.resume(store):
        pass
    assert dict(open_dump(store).attrs) == {"seed": 2, "last": 7}
    assert verify(store).ok


def test_names_without_room_are_known_before_they_are_recorded(store: Path) -> None:
    writer = DumpWriter.create(store, tasks=["a", "b"], sides={"t": 3})
    late = {f"n{i}": float(i) for i in range(34)}
    assert writer.without_room(["t", *late]) == []
    writer.record(step=0, t=np.ones((2, 3)), early=1.0)
    refused = writer.without_room(["t", "t_gram", "early", *late])
    assert refused == ["n32", "n33"]
    writer.record(step=1, t=np.ones((2, 3)), **{name: late[name] for name in late if name not in refused})
    assert writer.without_room([*late, "early"]) == refused
    with pytest.raises(DumpError, match="n32 cannot be added"):
        writer.record(step=2, t=np.ones((2, 3)), n32=1.0)
    writer.close()

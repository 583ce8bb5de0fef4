"""Typed errors: what they are, what they carry, and that they survive the way back from a worker process."""

from __future__ import annotations

import errno
import pickle
import uuid
from pathlib import Path

import pytest

from tests.dump import recordings as run
from toppo.common.errors import ToppoError
from toppo.common.terminal import with_flags
from toppo.dump import DumpError, DumpNotFoundError, DumpWriter, describe, export, open_dump, run_logs, verify


def test_a_missing_dump_is_a_missing_file(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for use in (open_dump, verify, run_logs, DumpWriter.resume, lambda path: export(path, tmp_path / "run.h5")):
        with pytest.raises(FileNotFoundError) as caught:
            use(nowhere)
        error = caught.value
        assert isinstance(error, DumpNotFoundError)
        assert isinstance(error, DumpError | ValueError | ToppoError)
        assert str(error).startswith(f"{nowhere}: ")
        assert "\n" not in str(error)
        assert "Errno" not in str(error)
        assert (error.errno, error.filename, error.path) == (errno.ENOENT, str(nowhere), str(nowhere))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_or_url_without_a_dump_is_missing_one(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    for place in (tmp_path, f"memory://{uuid.uuid4().hex}"):
        with pytest.raises(DumpNotFoundError, match=r"not a dump \(no zarr\.json there\)"):
            open_dump(place)


def test_a_damaged_dump_is_not_a_missing_one(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(DumpError) as caught:
        open_dump(tmp_path)
    assert not isinstance(caught.value, OSError)
    assert caught.value.path == str(tmp_path)
    assert caught.value.exit_code == 1


def test_an_unknown_name_comes_with_those_that_exist(complete: Path) -> None:
    dump = open_dump(complete)
    for question, allowed, hint in [
        (lambda: dump.gram("critc"), ("actor", "critic"), "has no side 'critc'; did you mean 'critic'?"),
        (lambda: dump["critic_gramm"], dump.names, "has no array 'critic_gramm'; did you mean 'critic_gram'?"),
        (lambda: dump.parameter("actor", "0.wheel"), ("0.weight", "0.bias"), "it has 0.weight, 0.bias"),
        (lambda: dump.slab("actor", 9, 0), tuple(range(6)), "has no snapshot 9, it holds 6"),
    ]:
        with pytest.raises(DumpError) as caught:
            question()
        assert hint in str(caught.value)
        assert caught.value.allowed == allowed
        assert caught.value.path == str(complete)


@pytest.mark.parametrize("error", [DumpError("a: b", path="a", allowed=["x"]), DumpNotFoundError("a: b", path="a")])
def test_errors_come_back_from_a_worker(error: DumpError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.path, back.allowed) == (str(error), "a", error.allowed)
    if isinstance(error, DumpNotFoundError):
        assert (back.errno, back.filename) == (errno.ENOENT, "a")


def test_the_command_line_makes_flags_of_options(complete: Path, tmp_path: Path) -> None:
    flags = {"slabs": "--slabs", "keepbits": "--keepbits"}
    with pytest.raises(DumpError) as caught:
        export(complete, tmp_path / "run.h5", keepbits=10)
    assert with_flags(str(caught.value), flags) == (
        "--keepbits 10: needs --slabs (Grams are kept in full); add --slabs or drop --keepbits"
    )
    archive = export(complete, tmp_path / "run.h5")
    with pytest.raises(DumpError) as caught:
        open_dump(archive).require_slabs()
    assert with_flags(str(caught.value), flags).endswith("or export that dump again with --slabs")
    assert describe(open_dump(archive))["slabs"] is False


def test_a_dump_of_several_planned_snapshots_says_so(store: Path) -> None:
    writer = run.create(store)
    writer.abandon()
    assert repr(open_dump(store)) == (
        f"<Dump {store}: 0 of 6 snapshots with 2 minibatches each, 3 tasks, sides actor and critic, "
        "with slabs, not complete>"
    )

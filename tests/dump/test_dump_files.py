"""Which paths are URLs, and where local ones lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dump import recordings as run
from toppo.dump import DumpWriter, open_dump, run_logs, verify
from toppo.dump.files import LocalFiles, is_url, local_path


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/run1", True),
        ("memory://run1/dump.zarr", True),
        ("https://host/run1", True),
        ("abfs+ssl://container/run1", True),
        ("simplecache::s3://bucket/run1", True),
        ("dumps/run1", False),
        (Path("dumps/run1"), False),
        (r"C:\runs\run1", False),
        ("C:/runs/run1", False),
        ("C://runs/run1", False),
        ("c::x://y", False),
        (r"\\server\share\run1", False),
        ("file:///data/run1", False),
        ("FILE:///data/run1", False),
        ("file:/data/run1", False),
        ("my runs/a b://c", False),
        ("dumps/odd://name", False),
    ],
)
def test_is_url(path: str | Path, url: bool) -> None:
    assert is_url(path) is url


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("dumps/my run", "dumps/my run"),
        ("dumps/100%25", "dumps/100%25"),
        ("file:///data/my%20run", "/data/my run"),
        ("file:///data/my run", "/data/my run"),
        ("file://localhost/data/run1", "/data/run1"),
        ("FILE:/data/run1", "/data/run1"),
        ("file://dumps/run1", "dumps/run1"),
        ("file:name", "file:name"),
    ],
)
def test_local_path(path: str, local: str) -> None:
    assert local_path(path) == Path(local)
    assert local_path("~/run1") == Path.home() / "run1"


@pytest.mark.parametrize("url", ["file:///C:/my%20runs/run1", "file://C:/my runs/run1"])
def test_file_urls_of_windows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rules that Python has for them on Windows."""
    nturl2path = pytest.importorskip("nturl2path")
    monkeypatch.setattr("urllib.request.url2pathname", nturl2path.url2pathname)
    assert str(local_path(url)) == r"C:\my runs\run1"


def test_a_path_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "my runs" / "run #1?"
    run.record_run(folder / "dump.zarr", snapshots=2)
    (folder / "config.toml").write_text("seed = 1\n")
    for path in (folder, str(folder), f"file://{str(folder).replace(' ', '%20')}"):
        run.assert_content(open_dump(path))
        assert verify(path).ok
        assert run_logs(path) == {"config.toml": "seed = 1\n"}
    DumpWriter.resume(f"file://{folder}/dump.zarr").close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.replace("zarr.json", b"old")

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("toppo.common.files.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.replace("zarr.json", b"new")
    assert run.tree(tmp_path) == {"zarr.json": b"old"}

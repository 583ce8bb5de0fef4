"""A run's configuration and logs, from its directory and from its archive."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from tests.dump import recordings
from toppo.dump import DumpError, export, open_dump, run_logs, verify

CONFIG = 'benchmark = "MT10"\n# Grüße\n'
EVALUATION = '{"collect": 0}\n{"half a li'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory like one of the trainer, with a file that is no log."""
    path = tmp_path_factory.mktemp("runs") / "run1"
    recordings.record_run(path / "dump.zarr", snapshots=2)
    (path / "config.toml").write_text(CONFIG)
    (path / "progress.jsonl").write_text("")
    (path / "evaluation.jsonl").write_text(EVALUATION)
    (path / "timings.jsonl").write_text("{}\n")
    return path


@pytest.fixture(scope="module")
def archive(run: Path) -> Path:
    return export(run, run.with_suffix(".h5"))


def test_the_archive_of_a_run_directory_keeps_its_logs_byte_for_byte(run: Path, archive: Path, tmp_path: Path) -> None:
    expected = {"config.toml": CONFIG, "progress.jsonl": "", "evaluation.jsonl": EVALUATION}
    again = export(archive, tmp_path / "again.h5")
    for place in (run, run / "dump.zarr", archive, again, f"file://{archive}"):
        assert run_logs(place) == expected
    with h5py.File(archive) as file:
        assert sorted(file["run"]) == sorted(expected)
        assert file["run/config.toml"][()].tobytes().decode() == CONFIG
    assert again.read_bytes() == archive.read_bytes()
    assert verify(archive).ok
    assert open_dump(archive).n_snapshots == 2


def test_a_bare_dump_and_its_archive_have_none(complete: Path, tmp_path: Path) -> None:
    """Archives made before logs were kept look the same."""
    archive = export(complete, tmp_path / "bare.h5")
    with h5py.File(archive) as file:
        assert "run" not in file
    assert run_logs(archive) == run_logs(complete) == {}
    assert verify(archive).ok


def test_logs_at_a_url(run: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(run), "/bucket/run1", recursive=True)
    for url in ("memory://bucket/run1", "memory://bucket/run1/dump.zarr/"):
        assert run_logs(url)["evaluation.jsonl"] == EVALUATION


def test_what_is_wrong_is_one_line(run: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="nowhere: no such file or directory; give a run directory or an exported"):
        run_logs(tmp_path / "nowhere")
    with pytest.raises(DumpError, match=r"config\.toml: the run's logs cannot be read"):
        run_logs(run / "config.toml")
    (tmp_path / "config.toml").write_bytes(b"\xff")
    with pytest.raises(DumpError, match=r"config\.toml is damaged, it is no text"):
        run_logs(tmp_path)


def test_a_damaged_log_of_an_archive_is_found(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    with h5py.File(archive) as file:
        chunk = file["run/config.toml"].id.get_chunk_info(0)
    data[chunk.byte_offset + 5] ^= 1
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(data)
    with pytest.raises(DumpError, match="the run's logs cannot be read"):
        run_logs(damaged)
    assert [damage.array for damage in verify(damaged).damages] == ["run"]

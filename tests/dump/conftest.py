from pathlib import Path

import pytest

from tests.dump import recordings
from toppo.dump import files


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is most of a small commit; only a power cut could tell the difference."""
    monkeypatch.setattr(files, "fsync", lambda path: None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run1" / "dump.zarr"


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, for tests that only read."""
    path = tmp_path_factory.mktemp("complete") / "dump.zarr"
    recordings.record_run(path)
    return path

from pathlib import Path

import pytest

from tests.dump import recordings
from toppo.common import files


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip every wait for the disk: most of a small commit's time. Only a power cut tells the difference."""
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

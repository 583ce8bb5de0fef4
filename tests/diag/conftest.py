from pathlib import Path

import matplotlib as mpl
import pytest

mpl.use("Agg")

from tests.diag import runs
from toppo.common import files


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fsync", lambda path: None)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run with PopArt and no LayerNorm, for tests that only read."""
    return str(runs.record(tmp_path_factory.mktemp("runs") / "fg"))


@pytest.fixture(scope="session")
def ln_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with LayerNorm, trained with the mean."""
    return str(runs.record(tmp_path_factory.mktemp("runs") / "mean-ln", layernorm="critic", combiner="mean"))


@pytest.fixture(scope="session")
def dead_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Task 2 never has a gradient."""
    return str(runs.record(tmp_path_factory.mktemp("runs") / "dead", dead=2))


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Somebody else's trainer: gradients alone, one snapshot, no stream."""
    return str(runs.record(tmp_path_factory.mktemp("runs") / "bare", bare=True, stream=False, snapshots=1))


@pytest.fixture(scope="session")
def archive(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as an .h5 without slabs."""
    from toppo.dump import export

    return export(run, tmp_path_factory.mktemp("archives") / "fg.h5")

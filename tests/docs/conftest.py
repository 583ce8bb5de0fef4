"""A directory like a clone after some work: recorded runs under dumps/, the shipped archives under figures/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from tests.diag.evaluated import MT10, evaluate
from tests.diag.runs import record
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of the examples. What they write stays in it."""
    where = tmp_path_factory.mktemp("clone")
    success = np.linspace(0, 1, 3)[:, None] * np.linspace(0.2, 1, len(MT10))
    for run in ("run1", "first", "demo"):
        evaluate(where / "dumps" / run, success, workers=1)
        record(where / "dumps" / run, tasks=MT10, layernorm="critic", combiner="fairgrad:alpha=1")
    (where / "figures").mkdir()
    for part in ("data", "published", "sweeps", "taskforce", "paper.toml"):
        (where / "figures" / part).symlink_to(ROOT / "figures" / part)
    before = Path.cwd()
    os.chdir(where)
    with mpl.rc_context():
        mpl.use("agg")
        yield where
    os.chdir(before)

"""Commands that can take more than two seconds say how far they are, on a terminal alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import toppo_diag
from tests.diag import runs
from toppo_diag.reading import progress


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("verify", ["snapshots"]),
        ("replay", ["combiners"]),
        ("conflicts", ["actor slabs", "critic slabs"]),
        ("invariance", ["combiners on Gaussians", "minibatches"]),
        ("export", ["slabs"]),
    ],
)
def test_long_commands_say_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, what: list[str]
):
    shown: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def recorded(title: str) -> Iterator[object]:
        steps = shown.setdefault(title, [])
        yield lambda done, total: steps.append((done, total))

    monkeypatch.setattr(progress, "progress", recorded)
    monkeypatch.setattr("toppo_diag.reading.dumps.progress", recorded)
    run = runs.record(tmp_path / "run")
    more = {"export": [tmp_path / "x.h5"]}.get(command, [])
    options = {"invariance": {"combiners": "fairgrad,mean"}, "export": {"slabs": True}}.get(command, {})
    getattr(toppo_diag, command)(run, *more, **options)
    assert len(shown) == len(what)
    for (title, steps), start in zip(shown.items(), what, strict=True):
        assert title.startswith(start)
        assert steps == sorted(steps)
        assert len(steps) > 1
        assert all(done <= total for done, total in steps)


def test_a_bar_is_for_a_terminal_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert list(progress.tracked("x", [1, 2])) == [1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.tracked("what is done", [1, 2])) == [1, 2]
    assert "what is done" in capsys.readouterr().err

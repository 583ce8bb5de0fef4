"""Every `toppo` and `toppo-diag` line of the pages is one that the programs accept, and the cheap ones run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from tests.docs.pages import ROOT, CommandLine, blocks, command_lines, links, name, pages
from toppo import cli
from toppo.training.config import FIELDS, resolve
from toppo_diag import cli as diag

APPS = {"toppo": cli.app, "toppo-diag": diag.app}
LINES = list({str(line): line for page in pages() for line in command_lines(page)}.values())
WHOLE = [line for line in LINES if line.whole]

DRAWING = {
    "heatmaps",
    "norms",
    "health",
    "contributions",
    "invariance",
    "conflicts",
    "trap",
    "weights",
    "replay",
    "curves",
}
CHEAP = DRAWING | {"info", "verify", "tables", "compare"}


def cheap(words: tuple[str, ...]) -> bool:
    """Whether a line takes seconds at most, and writes into the working directory alone."""
    if words[0] != "toppo-diag":
        return False
    of_archives = words[1] == "report" and "figures/data/" in words[2]  # other pages report their own runs
    return of_archives or words[1] in CHEAP or (words[1] == "watch" and "--once" in words)


RUN = [line for line in WHOLE if cheap(line.words)]


@pytest.fixture(scope="module")
def recorded(clone: Path) -> Path:
    """The clone after two examples: the first tutorial records toy.zarr, and the page on recording dumps/mine."""
    for page, part in (("tutorials/first-run.md", "DumpWriter"), ("howto/record.md", "class Net")):
        path = ROOT / "docs" / page
        (example,) = (block.code for block in blocks(path) if part in block.code)
        exec(compile(example, str(path), "exec", dont_inherit=True), {"__name__": "__main__"})
    return clone


def shown(line: CommandLine) -> str:
    return f"{name(line.page)}: {line}"


def parsed(line: CommandLine) -> Any:
    """The command's context for these words, as the program itself parses them, without running it."""
    group = typer.main.get_command(APPS[line.words[0]])
    context = group.make_context(line.words[0], list(line.words[1:]))
    _, command, rest = group.resolve_command(context, list(line.words[1:]))
    return command.make_context(line.words[1], rest, parent=context)


@pytest.mark.parametrize("line", WHOLE, ids=shown)
def test_a_line_is_accepted(line: CommandLine, clone: Path):
    context = parsed(line)
    given = context.params
    if line.words[:2] == ("toppo", "train"):
        options = {key: value for key, value in given.items() if key in FIELDS and value is not None}
        if "hidden" in options:
            options["hidden"] = tuple(int(width) for width in options["hidden"].split(","))
        resolve(options, preset=given["preset"])
    if line.words[:2] == ("toppo", "sweep"):
        assert given["file"].is_file()


@pytest.mark.parametrize("line", [line for line in LINES if not line.whole], ids=shown)
def test_a_command_in_a_sentence_exists(line: CommandLine):
    assert line.words[1] in typer.main.get_command(APPS[line.words[0]]).commands


@pytest.mark.parametrize("line", RUN, ids=shown)
def test_a_cheap_line_runs(
    line: CommandLine, clone: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys
):
    if {"toy.zarr", "dumps/mine"} & set(line.words):
        request.getfixturevalue("recorded")
    one_format = ["--format", "png"] if line.words[1] in DRAWING and "--format" not in line.words else []  # time
    monkeypatch.setattr("sys.argv", [*line.words, *one_format])
    with pytest.raises(SystemExit) as ended:
        diag.main()
    assert ended.value.code == 0, capsys.readouterr().err


def test_the_everyday_lines_are_in_the_readme():
    lines = {str(line) for line in command_lines(ROOT / "README.md")}
    assert {"toppo train --dump-every 5", "toppo-diag heatmaps dumps/run1", "toppo-diag report dumps/run1"} <= lines


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def test_the_readme_is_for_the_first_ten_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150

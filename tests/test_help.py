"""The help of both programs reads at the width of a plain terminal."""

from __future__ import annotations

import re

import pytest
import typer

from toppo.cli import app as toppo
from toppo.common.terminal import App
from toppo_diag.cli import app as diag

COMMANDS = [
    pytest.param(app, name, id=f"{program} {name}")
    for program, app in (("toppo", toppo), ("toppo-diag", diag))
    for name in typer.main.get_command(app).commands  # type: ignore[attr-defined]
]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")


def help_of(app: App, name: str) -> tuple[list[str], str]:
    """Every name of every argument and option, and the help."""
    program = typer.main.get_command(app)
    command = program.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [], parent=program.make_context("x", ["x"]), resilient_parsing=True)
    names = [
        *(p.metavar or p.name for p in command.params if p.param_type_name == "argument"),
        *(n for p in command.params if p.param_type_name == "option" for n in (*p.opts, *p.secondary_opts)),
    ]
    return names, command.get_help(context)


@pytest.mark.parametrize(("app", "name"), COMMANDS)
def test_every_name_is_whole_at_80_columns(app: App, name: str):
    names, text = help_of(app, name)
    assert names
    for option in names:
        assert re.search(rf"(?m)(^|[\s\[{{/]){re.escape(option.strip('[]{}.'))}([\s,\]}}.]|$)", text), option
    assert max(map(len, text.splitlines())) <= 80


def test_options_of_a_training_stand_in_sections():
    _, text = help_of(toppo, "train")
    sections = re.findall(r"(?m)^(\S.*):$", text)
    assert sections[:2] == ["Options", "Run"]
    assert "PPO (Table B.1 of the paper)" in sections
    assert text.index("PPO (Table") < text.index("--normalise-advantage / --no-normalise-advantage")


@pytest.mark.parametrize("app", [toppo, diag])
def test_the_help_of_a_program_says_what_each_command_does(app: App):
    program = typer.main.get_command(app)
    text = " ".join(program.get_help(program.make_context("x", ["x"], resilient_parsing=True)).split())
    for name, command in program.commands.items():  # type: ignore[attr-defined]
        assert f"{name} {' '.join(command.help.split(chr(10) * 2)[0].split())}" in text

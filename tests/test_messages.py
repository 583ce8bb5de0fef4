"""Messages of the library name no flags of a command line: those are added in cli.py (`toppo.common.terminal`)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from toppo.common.errors import bad_option
from toppo.common.terminal import flags, with_flags

ROOT = Path(__file__).parents[1]
FLAG = re.compile(r"(^|\s)--[a-z]")
COMMAND_LINE = ("cli.py", "terminal.py")
"""Files of the command lines themselves."""


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string literal, except docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_literals_finds_flags_in_all_kinds_of_strings():
    source = '"""--in-docstring"""\nx = "--first"\ny = f"give --second {x}"\nz = "a-- --Third --"\n'
    assert [line for line, text in literals(source) if FLAG.search(text)] == [2, 3]


@pytest.mark.parametrize("package", ["toppo", "toppo_diag"])
def test_no_message_outside_cli_names_a_flag(package: str):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name not in COMMAND_LINE
        for line, text in literals(path.read_text(encoding="utf-8"))
        if FLAG.search(text)
    ]
    assert not found, "\n".join(found)


def test_the_command_line_turns_options_into_its_flags():
    from toppo.cli import app

    known = flags(app)
    assert known["dump_every"] == "--dump-every"
    assert known["as_json"] == "--json"
    message = str(bad_option("dump_every", 0, "must be at least 1; see `config=a.toml`"))
    assert message == "`dump_every=0`: must be at least 1; see `config=a.toml`"
    assert with_flags(message, known) == "--dump-every 0: must be at least 1; see --config a.toml"
    assert with_flags("go on with `toppo resume dumps/run1`", known) == "go on with `toppo resume dumps/run1`"

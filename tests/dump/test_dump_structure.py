"""The room itself: no circles, no flags in messages, nothing that one system alone has, an example that runs."""

from __future__ import annotations

import ast
import doctest
import graphlib
from pathlib import Path

import toppo.dump

ROOM = Path(toppo.dump.__file__).parent
TREES = {path.stem: ast.parse(path.read_text()) for path in sorted(ROOM.glob("*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """Full name of everything imported, at the top, inside functions and for type checkers."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def arrows() -> dict[str, set[str]]:
    """Module of the room -> the modules of the room that it imports."""
    found = {}
    for module, tree in TREES.items():
        inside = {name.split(".")[2] for name in imported(tree) if name.startswith("toppo.dump.")}
        found[module] = {name if name in TREES else "__init__" for name in inside}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    order = list(graphlib.TopologicalSorter(arrows()).static_order())
    assert order[-1] == "__init__"
    assert order.index("source") < order.index("h5_source") < order.index("opening") < order.index("archive")
    assert order.index("buffers") < order.index("committer") < order.index("intake") < order.index("writer")


def test_modules_for_one_system_alone_are_not_imported() -> None:
    assert not {"fcntl", "msvcrt", "pwd", "resource"} & set().union(*(imported(tree) for tree in TREES.values()))


def test_no_message_names_a_flag() -> None:
    texts = [
        (module, node.value)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(texts) > 500
    assert [(module, text) for module, text in texts if "--" in text] == []


def test_the_example_of_the_package_runs() -> None:
    result = doctest.testmod(toppo.dump)
    assert result.failed == 0
    assert result.attempted > 10

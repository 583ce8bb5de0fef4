"""Every Python example runs: the blocks of the pages, from top to bottom of a page, and those of the docstrings."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import pytest

from tests.docs.pages import ROOT, blocks, name, pages

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

WITH_PYTHON = [page for page in pages() if any(block.language in ("python", "pycon") for block in blocks(page))]
SOURCES = [source for where in ("toppo", "toppo_diag", "docs/_ext") for source in sorted((ROOT / where).rglob("*.py"))]
WITH_EXAMPLES = [source for source in SOURCES if ">>> " in source.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that registers a combiner does so for itself alone."""
    monkeypatch.setattr("toppo.combiners.registry._registered", {})


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_python_of_a_page_runs(page: Path, clone: Path):
    names: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for block in blocks(page):
        if block.language == "python":
            # as many empty lines as stand above the block, so that a traceback names the line of the page
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec", dont_inherit=True), names)
        elif block.language == "pycon":
            example = doctest.DocTestParser().get_doctest(block.code, names, name(page), str(page), block.line - 1)
            runner.run(example, clear_globs=False)
            names = example.globs
    plt.close("all")
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("source", WITH_EXAMPLES, ids=name)
def test_the_examples_of_a_module_run(source: Path, clone: Path):
    found = doctest.testmod(imported(source), optionflags=FLAGS)
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_examples():
    """A change of how they are found cannot pass by finding none."""
    assert ROOT / "README.md" in WITH_PYTHON
    assert ROOT / "toppo/combiners/__init__.py" in WITH_EXAMPLES


def imported(source: Path) -> ModuleType:
    """A module of the packages by its name, any other by its file."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "docs":
        return importlib.import_module(".".join(parts).removesuffix(".__init__"))
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

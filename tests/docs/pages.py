"""What the tests read out of README.md, docs/ and the other pages: code blocks, command lines, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "_generated")
SKIP = "% skip: next"
"""A comment before a code block that cannot run in a test; a comment above it says why."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S)
_CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s#]+)")
_SHELL = ("", "console", "sh", "shell", "bash")


def pages() -> list[Path]:
    """Every page that a user reads."""
    docs = [page for page in (ROOT / "docs").rglob("*.md") if not set(BUILT) & set(page.parts)]
    others = [ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), ROOT / "dumps" / "README.md"]
    return [*others, *sorted((ROOT / "figures").rglob("*.md")), *sorted(docs)]


def name(page: Path) -> str:
    """The page's name in the report of a test."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and the line of the page on which its code starts."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that are not marked as skipped, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        if not text[: fence.start()].rstrip().endswith(SKIP):
            line = text.count("\n", 0, fence.start("code")) + 1
            found.append(Block(fence["language"], fence["code"], line))
    return found


@dataclass(frozen=True)
class CommandLine:
    """A `toppo` or `toppo-diag` line of a page.

    Attributes:
        page: where it stands.
        words: the program first.
        whole: whether it is a whole command line, rather than the name of a command in a sentence.
    """

    page: Path
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def command_lines(page: Path) -> Iterator[CommandLine]:
    """Every line of a shell block, and every code span of a sentence, that starts with one of the two programs."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        if block.language not in _SHELL:
            continue
        variables: dict[str, str] = {}
        for line in block.code.replace("\\\n", " ").splitlines():
            if assignment := re.fullmatch(r'([A-Z]+)="([^"]*)"', line.strip()):
                variables[assignment[1]] = assignment[2]
            for variable, value in variables.items():
                line = line.replace(f"${variable}", value)
            words = _words(line)
            if words:
                yield CommandLine(page, words, whole=True)
    for span in _CODE_SPAN.finditer(_FENCE.sub("", text)):
        if words := _words(" ".join(span[1].split())):
            yield CommandLine(page, words, whole=len(words) > 2)


def _words(line: str) -> tuple[str, ...]:
    """The words of a line that runs one of the two programs, () of any other."""
    line = line.strip().removeprefix("$ ")
    if not re.match(r"toppo(-diag)? [a-z-]", line) or "<" in line or "..." in line:
        return ()
    return tuple(word for word in shlex.split(line, comments=True) if word != "&")


def links(page: Path) -> list[str]:
    """The relative links and pictures of a page, outside its code."""
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))

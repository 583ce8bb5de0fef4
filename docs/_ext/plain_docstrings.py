"""Docstrings here are plain text with `code` in backticks. This keeps the formulas in them from being read as reST."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_KEPT = re.compile(r"(^ *>>>.*?(?:\n *(?=\n)|\Z)|`+[^`]+`+)", re.MULTILINE | re.DOTALL)
"""An example with what it prints, or a code span."""
_MARKUP = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")


def escaped(text: str) -> str:
    """A docstring as reST: outside examples and code spans, what reST takes for markup is escaped.

    >>> print(escaped("||w_i g_i|| of `a*b`(c)"))
    \\|\\|w_i g_i\\|\\| of `a*b`\\ (c)
    """
    parts = _KEPT.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _MARKUP.sub(r"\\\g<0>", part)
        elif part.startswith("`") and parts[i + 1][:1].strip():
            parts[i] += "\\ "  # reST ends a code span only at a space or some punctuation
    return "".join(parts)


def escape(_app: Sphinx, _what: str, _name: str, _obj: object, _options: Any, lines: list[str]) -> None:
    """Escape a docstring in place."""
    lines[:] = escaped("\n".join(lines)).split("\n")


def readable(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The signature with `...` for a default that is made anew in each call."""
    return None if signature is None else signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point. It runs before napoleon, whose output has markup of its own."""
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.connect("autodoc-process-signature", readable)
    return {"parallel_read_safe": True}

"""The text of a docstring and of each of its arguments, so that the command line and Python share one text."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples):\s*$")
_ENTRY = re.compile(r"^    (\w+): (.*)$")


def description(documented: object) -> str:
    """The docstring up to its first section, each paragraph on one line."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    end = next((n for n, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    paragraphs = "\n".join(lines[:end]).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def arguments(documented: object) -> dict[str, str]:
    """The text of each entry under Args and Attributes, on one line, by name."""
    found: dict[str, str] = {}
    name, inside = None, False
    for line in (inspect.getdoc(documented) or "").splitlines():
        if section := _SECTION.match(line):
            name, inside = None, section[1] in ("Args", "Attributes")
        elif inside and (entry := _ENTRY.match(line)):
            name = entry[1]
            found[name] = entry[2].strip()
        elif name is not None and line.startswith("        "):
            found[name] += f" {line.strip()}"
        elif line.strip():
            name = None
    return found

"""What a user meant who mistyped a name, or gave a name in place of a path."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

RUNS = Path("dumps")
"""Where runs are made, relative to the current directory."""

_LONGEST = 200
"""Characters of a name that are compared: the time grows with their square."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name` and is not equal to it; None where nothing comes close."""
    others = [other for other in known if other != name]
    found = difflib.get_close_matches(name[:_LONGEST], others, n=1, cutoff=0.5)
    return found[0] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: "did you mean 'mean'?", or the list of all known names."""
    known = list(known)
    near = closest(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"


def suggested_run(path: Path, otherwise: str) -> str:
    """What to say about a path that holds no run: "did you mean dumps/run1?" if that is one, or `otherwise`."""
    meant = RUNS / path
    named = bool(path.parts) and ".." not in path.parts and not path.is_absolute()
    there = named and os.path.isdir(meant)  # noqa: PTH112 (Path.is_dir raises if a name is too long)
    return f"did you mean {meant}?" if there else otherwise

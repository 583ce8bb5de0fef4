"""What `info` knows, as lines that a person reads."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toppo_diag.output import table_lines

WIDTH = 100
_LABEL = 14


def screen(facts: Mapping[str, Any]) -> list[str]:
    """The lines of a screen about a dump, or about the runs in a directory.

    Args:
        facts: what `toppo_diag.info` gives.
    """
    return table_lines([_row(run) for run in facts["runs"]]) if "runs" in facts else list(_dump(facts))


def _row(run: Mapping[str, Any]) -> dict[str, str]:
    steps, planned, mean = run["steps"], run["planned_steps"], run["mean_success"]
    share = f" of {planned:,} ({100 * (steps or 0) / planned:.0f}%)" if planned else ""
    return {
        "run": run["run"],
        "state": run["state"],
        "steps": "none yet" if steps is None else f"{steps:,}{share}",
        "snapshots": "-" if run["snapshots"] is None else str(run["snapshots"]),
        "mean success": "-" if mean is None else f"{mean:.3f}",
    }


def _dump(facts: Mapping[str, Any]) -> Iterator[str]:
    state = "complete" if facts["complete"] else "not complete: the run goes on, or was interrupted"
    yield f"{facts['path']}: {facts['kind']}, {state}, {_size(facts['bytes'])}"
    planned = "" if facts["planned"] in (None, facts["snapshots"]) else f" of {facts['planned']} planned"
    yield from _line("snapshots", f"{facts['snapshots']}{planned}, {facts['minibatches']} minibatches each")
    yield from _line(facts["step"]["label"], _steps(facts["steps"]))
    if facts["stream_entries"]:
        yield from _line("Gram stream", f"{facts['stream_collects']} collects, {facts['stream_entries']} Grams each")
    yield from _line(f"{len(facts['tasks'])} tasks", _separator(facts["tasks"]).join(facts["tasks"]))
    for side, size in facts["sides"].items():
        tensors = size["tensors"]
        yield from _line(side, f"{size['parameters']:,} parameters in {len(tensors)} tensors: {', '.join(tensors)}")
    bits = "all bits" if facts["keepbits"] is None else f"{facts['keepbits']} mantissa bits"
    grams = "Grams of each layer" if facts["layer_grams"] else "Grams of each side"
    yield from _line("gradients", f"kept, {bits}" if facts["slabs"] else f"not kept; {grams}")
    bad = {side: n for side, n in facts["not_finite"].items() if n}
    yield from _line("not finite", ", ".join(f"{n} on {side}" for side, n in bad.items()) or "none")
    if facts["absent"]:
        yield from _line("absent", ", ".join(f"{task} {n} times" for task, n in facts["absent"].items()))
    if facts["scalars"]:
        yield from _line("also recorded", ", ".join(facts["scalars"]))
    yield from _commands(facts["commands"])
    yield from _line("format", f"schema {facts['schema_version']}, tolerance of Grams {facts['gram_tolerance']:g}")
    for name, value in facts["attrs"].items():
        if isinstance(value, Mapping):
            if value:
                yield f"{name}:"
            for key, item in value.items():
                if shown := _shown(item):
                    yield from _line(f"  {key}", shown, 24)
        else:
            yield from _line(name, _shown(value))


def _commands(feeds: Mapping[str, Any]) -> Iterator[str]:
    """Which commands the dump can feed, and what is missing for the others."""
    whole = [command for command, feed in feeds.items() if not feed["missing"]]
    if whole:
        yield from _line("feeds", ", ".join(whole))
    lacking: dict[tuple[str, bool], list[str]] = {}
    for command, feed in feeds.items():
        if feed["missing"]:
            lacking.setdefault(("; ".join(feed["missing"]), feed["works"]), []).append(command)
    for (missing, works), commands in lacking.items():
        yield from _line("lacks", f"{missing}: {', '.join(commands)} {'show less' if works else 'show nothing'}")


def _separator(names: Sequence[str]) -> str:
    """What stands between names: a comma, except where a name has one itself."""
    return "; " if any("," in name for name in names) else ", "


def _steps(ends: Any) -> str:
    """The first and last step with a snapshot; one number where they are the same."""
    if not ends:
        return "none yet"
    first, last = ends[0], ends[-1]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _line(label: str, text: str, indent: int = _LABEL) -> list[str]:
    """A label and a text that goes on below itself."""
    return textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=f"{label:<{indent}} ",
        subsequent_indent=" " * (indent + 1),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return str(value)


def _size(size: int) -> str:
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} bytes"

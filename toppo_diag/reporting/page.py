"""Puts the page together: the template, the style, the script, Plotly, and the data of the runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template

from toppo_diag.analysis.findings import Check
from toppo_diag.analysis.overview import Overview
from toppo_diag.analysis.recorded import RunRecord
from toppo_diag.analysis.what_if import Option
from toppo_diag.reporting import parts
from toppo_diag.reporting.payload import Group, embedded, payload
from toppo_diag.reporting.text import html


def page(
    runs: Sequence[RunRecord],
    checks: Sequence[Sequence[Check]],
    options: Sequence[Mapping[str, tuple[Sequence[Option], Sequence[str]]]],
    views: Sequence[Overview],
    kept: Sequence[Sequence[int]],
    groups: Sequence[Group] = (),
    notes: Sequence[str] = (),
    follow: float | None = None,
) -> str:
    """The text of the HTML file. It needs no other file and no network, and holds no date.

    Args:
        runs: what each run recorded.
        checks: of each run.
        options: what other combiners would do: for each run, by side, with notes.
        views: the numbers of the views of each run.
        kept: for each run, the indices of the tasks that the views show; the tasks are the same for all runs.
        groups: runs that differ only in their seed.
        notes: what has to be said of the page as a whole.
        follow: seconds after which an open page looks for news; None if it does not.
    """
    tasks = [runs[0].tasks[k] for k in kept[0]]
    names = ", ".join(run.name for run in runs)
    library, script = _library(), _script("page.js")
    return Template(_file("page.html")).substitute(
        policy=_policy(library, script),
        title=html(f"{names}: report"),
        style=_file("page.css"),
        heading=html(names),
        facts="<br>".join(html(_facts(run, several=len(runs) > 1)) for run in runs),
        findings="".join(f'<p class="note">{html(note)}</p>' for note in notes) + parts.findings(runs, checks, kept),
        what_if=parts.what_if(runs, options),
        explanations=parts.explanations(check.kind for of_run in checks for check in of_run),
        footer=f"Made by <code>toppo-diag report</code>. Drawn with {html(_first_words(library))}, MIT license.",
        data=embedded(payload(runs, views, tasks, groups, follow)),
        library=library,
        script=script,
    )


def _facts(run: RunRecord, several: bool) -> str:
    state = "complete" if run.complete else "not complete"
    facts = [f"{len(run.tasks)} tasks", state, *(f"{name} {value}" for name, value in run.facts.items())]
    return (f"{run.name}: " if several else "") + ", ".join(facts)


def _policy(*scripts: str) -> str:
    """The rules that the browser enforces: these scripts alone run, nothing is fetched, and no text is evaluated."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)


@cache
def _script(start: str) -> str:
    """The modules of the page's script as one script, each after those that it imports."""
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        text = _file(f"script/{name}")
        for other in _IMPORT.findall(text):
            if other not in modules:
                add(other)
        modules[name] = re.sub(r"^export ", "", _IMPORT.sub("", text), flags=re.MULTILINE)

    add(start)
    return "(() => {\n" + "\n".join(modules.values()) + "})();\n"


@cache
def _file(name: str) -> str:
    return (resources.files("toppo_diag.reporting") / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Plotly's JavaScript, from its Python package."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")


def _first_words(library: str) -> str:
    """Name and version of Plotly, from its first lines."""
    return next((line.strip("* ") for line in library.splitlines()[:5] if "plotly.js" in line), "plotly.js")

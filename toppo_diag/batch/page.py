"""The HTML page that says which figure was made from which dump, with which command."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from toppo_diag.output import shown_value
from toppo_diag.request import as_texts

if TYPE_CHECKING:
    from toppo_diag.batch.manifest import Manifest
    from toppo_diag.batch.result import Result

PAGE = "index.html"
REPORT = "report.html"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; border: 1px solid #ddd }
table { border-collapse: collapse; font-size: 13px } td, th { border-bottom: 1px solid #ddd; padding: .15rem .6rem;
text-align: left } code { background: #f4f4f4; padding: 0 .2rem } .failed { color: #b00020 } div { overflow-x: auto }
"""


def summary_page(manifest: Manifest, results: Sequence[Result], report: str | None) -> str:
    """The page as HTML. It shows each figure with its command, dumps, options, files, headline numbers and notes.

    It holds no dates, so the same dumps give the same page.

    Args:
        manifest: what was made.
        results: of its entries.
        report: the file of the interactive report of all its dumps; None where there is none.
    """
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>{escape(manifest.path.name)}</title><style>{_STYLE}</style>",
        f"<h1>What <code>{escape(manifest.path.name)}</code> made</h1>",
    ]
    if report is not None:
        about = "what is wrong with these runs, and every view of them"
        parts.append(f'<p><a href="{escape(report)}">The interactive report</a> shows {about}.</p>')
    for result in results:
        entry = result.entry
        parts.append(f'<h2 id="{escape(entry.name)}">{escape(entry.title)}</h2>')
        parts.append(f"<p><code>{escape(command_line(result))}</code></p>")
        if sources := [source(dump) for dump in entry.sources]:
            parts.append(f"<p>From {escape('; '.join(sources))}.</p>")
        parts += [f'<p class="failed">{escape(failure)}</p>' for failure in result.failures]
        if picture := next((f for f in result.files if f.endswith((".png", ".svg"))), None):
            parts.append(f'<p><img src="{escape(picture)}" alt="{escape(entry.title)}"></p>')
        if result.files:
            links = (f'<a href="{escape(file)}">{escape(file)}</a>' for file in result.files)
            parts.append(f"<p>{', '.join(links)}</p>")
        if result.numbers:
            columns = list(result.numbers[0])
            head = "".join(f"<th>{escape(c)}</th>" for c in columns)
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(shown_value(row.get(c, '')))}</td>" for c in columns) + "</tr>"
                for row in result.numbers
            )
            parts.append(f"<div><table><tr>{head}</tr>{body}</table></div>")
        parts += [f"<p>{escape(note)}</p>" for note in result.notes]
    return "\n".join(parts) + "\n"


def source(dump: str) -> str:
    """The name of a dump on the page. An archive comes with the start of its SHA-256, to tell it from others."""
    if not Path(dump).is_file():
        return dump
    return f"{dump} (SHA-256 {hashlib.sha256(Path(dump).read_bytes()).hexdigest()[:16]})"


def command_line(result: Result) -> str:
    """The command line that makes one entry alone."""
    entry = result.entry
    words = ["toppo-diag", entry.command]
    words += entry.sources
    for name, value in entry.options.items():
        text = ",".join(as_texts(value))
        words += [f"--{name.replace('_', '-')}", f"'{text}'" if ";" in text or " " in text else text]
    return " ".join(words)

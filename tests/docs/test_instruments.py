"""The instrument pages against what the commands write: every column of every table, and every picture."""

from __future__ import annotations

import csv
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import toppo_diag
from toppo_diag.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "instruments"
MANIFEST = PAGES / "pictures.toml"
ENTRIES = tomllib.loads(MANIFEST.read_text())["figures"]


def columns(text: str) -> list[str]:
    """First column of the table that `text` begins with, without its header."""
    rows = re.match(r"[^|]*?((?:^\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None
    return [row.split("|")[1].strip().strip("`") for row in rows[1].splitlines()[2:]]


def described(page: str) -> dict[tuple[str, str], list[str]]:
    """(figure, name) -> columns, for every bold tables["name"] of a page; figure is "" where none is named."""
    text = (PAGES / f"{page}.md").read_text()
    found = {}
    for match in re.finditer(r'^\*\*`tables\["(.*?)"\]`\*\*(?: of `([\w-]+)`)?', text, re.MULTILINE):
        found[match[2] or "", match[1]] = columns(text[match.end() :])
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the manifest of the pictures, with fewer combiners and nothing drawn: the columns are the same."""
    out = tmp_path_factory.mktemp("pictures")
    text = MANIFEST.read_text().replace("../../figures", str(ROOT / "figures"))
    text = text.replace('combiners = "all"', 'combiners = "mean"')
    text = text.replace('command = "invariance"', 'command = "invariance"\ncombiners = "mean;fairgrad"')
    (out / "few.toml").write_text(text)
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)  # the manifest leaves `published` at its default
    patch.setattr("toppo_diag.product.write_figure", lambda *_: [])
    try:
        result = CliRunner().invoke(
            app, ["figures", str(out / "few.toml"), "--out", str(out), "--format", "svg"], catch_exceptions=False
        )
    finally:
        patch.undo()
    assert result.exit_code == 0, result.output
    return out


def test_the_columns_of_every_table_are_on_its_page(made: Path) -> None:
    for name, entry in ENTRIES.items():
        figure = entry.get("figure", "success") if entry["command"] == "curves" else ""
        on_page = {key: value for key, value in described(entry["command"]).items() if key[0] == figure}
        files = sorted(made.glob(f"{name}*.csv"))
        tables = {file.stem.removeprefix(name).strip("-") or "main": file for file in files}
        assert {table for _, table in on_page} == set(tables), name
        for table, file in tables.items():
            with file.open() as lines:
                assert on_page[figure, table] == next(csv.reader(lines)), f"{name}: {table}"


def test_every_picture_of_a_page_is_in_the_manifest(made: Path) -> None:
    drawn = {f"{name}.png" for name, entry in ENTRIES.items() if entry["command"] not in ("tables", "scalars")}
    shown = {name for page in PAGES.glob("*.md") for name in re.findall(r"_generated/([\w.-]+)", page.read_text())}
    assert {name for name in shown if name.endswith(".png")} == drawn
    assert all((made / name).exists() for name in shown - drawn)


def test_every_instrument_has_a_page_in_the_index() -> None:
    from toppo_diag.commands import OF_DUMPS, OF_RUNS, TABLES

    index = (PAGES / "index.md").read_text()
    for name in (*OF_DUMPS, *OF_RUNS, *TABLES):
        assert (PAGES / f"{name}.md").exists() and f"]({name}.md)" in index and f"\n{name}\n" in index
    assert {page.stem for page in PAGES.glob("*.md")} == {*OF_DUMPS, *OF_RUNS, *TABLES, "report", "index", "looking"}
    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    looking = (PAGES / "looking.md").read_text()
    others = named - {*OF_DUMPS, *OF_RUNS, *TABLES, "figures", "report"}
    assert all(f"\n## {name}:" in looking for name in others), others


def test_the_columns_of_the_report_s_tables_are_on_its_page() -> None:
    tables = toppo_diag.report(ROOT / "figures" / "data" / "mean-ln.h5").tables
    assert described("report") == {("", name): list(table.columns) for name, table in tables.items()}

"""A manifest: made, checked, and what is said of a wrong one."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.diag import runs
from tests.diag.test_cli import diag  # noqa: F401  (a fixture)
from toppo.dump import export
from toppo_diag.batch.make import first_difference
from toppo_diag.batch.manifest import read_manifest

MANIFEST = """
out = "out"
[figures.norms]
title = "Figure 2 & more"
command = "norms"
dumps = ["data/fg.h5"]
[figures.early]
command = "heatmaps"
dumps = ["data/fg.h5"]
stage = ["early"]
side = "actor"
[figures.cor-1]
command = "invariance"
dumps = ["data/fg.h5"]
combiners = "mean;fairgrad"
tol = 1e-12
"""


@pytest.fixture
def paper(tmp_path: Path, archive: Path) -> Path:
    (tmp_path / "paper" / "data").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "paper" / "data" / "fg.h5")
    manifest = tmp_path / "paper" / "paper.toml"
    manifest.write_text(MANIFEST)
    return manifest


def test_make_then_check(diag, paper):  # noqa: F811
    code, out, err = diag("figures", paper, "--jobs", 2, "--format", "svg", "--json")
    assert (code, err) == (0, "")
    assert [line["entry"] for line in json.loads(out)] == ["norms", "early", "cor-1"]
    made = {p.name for p in (paper.parent / "out").iterdir()}
    assert {"norms.svg", "norms.csv", "norms-aggregators.csv", "early.svg", "cor-1.csv", "index.html"} <= made
    page = (paper.parent / "out" / "index.html").read_text()
    assert 'href="report.html"' in page and (paper.parent / "out" / "report.html").stat().st_size > 1e6
    assert "Figure 2 &amp; more" in page
    assert "toppo-diag heatmaps" in page
    digest = hashlib.sha256((paper.parent / "data" / "fg.h5").read_bytes()).hexdigest()
    assert f"fg.h5 (SHA-256 {digest[:16]})" in page
    assert 'src="early.svg"' in page
    assert diag("figures", paper, "--check")[0] == 0


def test_check_names_what_differs(diag, paper):  # noqa: F811
    diag("figures", paper, "--format", "svg")
    out = paper.parent / "out"
    text = (out / "norms.csv").read_text().splitlines()
    *cells, number = text[3].split(",")
    text[3] = ",".join([*cells, str(float(number) * 1.01)])
    (out / "norms.csv").write_text("\n".join(text) + "\n")
    (out / "early.csv").unlink()
    code, _, err = diag("figures", paper, "--check")
    assert code == 1
    assert "norms.csv: line 4, norm_high:" in err
    assert "early.csv is not there; make it first" in err
    assert "cor-1" not in err
    assert diag("figures", paper, "--check", "--only", "cor-1")[0] == 0


def test_only_makes_only(diag, paper):  # noqa: F811
    assert diag("figures", paper, "--only", "early", "--format", "svg", "--out", "here")[0] == 0
    made = {"early.svg", "early.csv", "early-stages.csv", "index.html", "report.html"}
    assert {p.name for p in Path("here").iterdir()} == made


def test_one_that_fails_does_not_stop_the_others(diag, paper):  # noqa: F811
    paper.write_text(MANIFEST.replace("data/fg.h5", "data/none.h5", 1))
    code, _, err = diag("figures", paper, "--format", "svg")
    assert code == 1
    assert err.count("\n") == 1
    assert "failed: norms: " in err
    assert "none.h5" in err
    assert (paper.parent / "out" / "early.svg").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('command = "norms"', 'command = "norm"', "unknown command 'norm': did you mean 'norms'?"),
        ("tol = 1e-12", "tolerance = 1", "invariance has no option 'tolerance'"),
        ('dumps = ["data/fg.h5"]', "", "names no dumps"),
        ('out = "out"', "output = 1", "unknown key 'output'"),
        ("[figures.norms]", "[figures.norms", "is not valid TOML"),
    ],
)
def test_a_wrong_manifest_is_one_line(diag, paper, old, new, message):  # noqa: F811
    paper.write_text(MANIFEST.replace(old, new, 1))
    code, _, err = diag("figures", paper)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_unknown_entry(diag, paper):  # noqa: F811
    code, _, err = diag("figures", paper, "--only", "norm")
    assert (code, "has no such entry; it has norms, early, cor-1" in err) == (2, True)


def test_the_papers_manifest_is_whole(tmp_path: Path):
    """Every mechanism figure is there, and every entry but the tables can be made from archives without slabs."""
    manifest = Path(__file__).parents[2] / "figures" / "paper.toml"
    names = {entry.name for entry in read_manifest(manifest).entries}
    assert {"figure-2", "figure-3", *(f"figure-d{n}" for n in range(1, 6)), "table-c1"} <= names
    assert set(tomllib.loads(manifest.read_text())["figures"]) == names


def test_the_papers_figures_from_archives(diag, tmp_path):  # noqa: F811
    """All of the paper's mechanism figures, from four small archives without slabs."""
    data = tmp_path / "figures" / "data"
    data.mkdir(parents=True)
    for name, ln, combiner in (
        ("mean", "none", "mean"),
        ("mean-ln", "critic", "mean"),
        ("fg", "none", "fairgrad:alpha=1"),
        ("fg-ln", "critic", "fairgrad:alpha=1"),
    ):
        export(runs.record(tmp_path / name, layernorm=ln, combiner=combiner), data / f"{name}.h5")
    shutil.copy(Path(__file__).parents[2] / "figures" / "paper.toml", tmp_path / "figures")
    only = "figure-2,figure-3,figure-d1,figure-d2,figure-d3,figure-d4,conflicts,trap,replay"
    code, _, err = diag("figures", "--only", only, "--format", "svg")
    assert (code, err) == (0, "")


def test_differences_are_told_from_rounding():
    table = "task,norm\na,1.0\nb,2.0\n"
    assert first_difference(table, table.replace("2.0", "2.0000000001")) is None
    assert first_difference(table, table.replace("2.0", "2.1")) == "line 3, norm: 2.0 on disk, 2.1 from the dumps"
    assert "has 2 rows, the dumps give 1" in str(first_difference(table, "task,norm\na,1.0\n"))
    assert "has columns" in str(first_difference(table, table.replace("norm", "size")))
    assert first_difference(table, table.replace("2.0", "9"), measured=["norm"]) is None
    assert first_difference("x\nnan\n", "x\nnan\n") is None

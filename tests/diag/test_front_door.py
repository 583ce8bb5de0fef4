"""`import toppo_diag`: every command as a function, with the command line's options, defaults and pictures."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import typer

import toppo_diag
from tests.diag.evaluated import evaluate
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from tests.diag.test_tables import ramp
from toppo.dump import DumpError, open_dump
from toppo_diag import cli
from toppo_diag.commands import ALL, COMMANDS, OF_RUNS
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.output import table_lines
from toppo_diag.request import Selection, as_texts

QUICK = {"invariance": {"combiners": ["fairgrad", "mean"]}}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_and_its_command_give_the_same_files(diag, run, name, tmp_path):  # noqa: F811
    options = QUICK.get(name, {})
    product = ALL[name](run, **options)
    made = product.save(tmp_path / "python", "png,svg")
    spelled = [f"--{key}={','.join(value)}" for key, value in options.items()]
    code, out, err = diag(name, run, "--out", "typed", "--format", "png,svg", "--json", *spelled)
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert [Path(file).name for file in answer["files"]] == [path.name for path in made]
    for path in made:
        assert path.read_bytes() == (tmp_path / "typed" / path.name).read_bytes(), path.name
    assert json.dumps(list(product.headline)) == json.dumps(answer["numbers"])


def test_every_command_is_a_function_of_the_package():
    for name in (*ALL, "info", "verify", "export", "watch", "figures"):
        assert callable(getattr(toppo_diag, name.replace("-", "_")))
    assert set(toppo_diag.__all__) == set(dir(toppo_diag))
    with pytest.raises(AttributeError, match="no attribute 'heatmap'"):
        _ = toppo_diag.heatmap


@pytest.mark.parametrize("name", ALL)
def test_defaults_are_those_of_the_command_line_and_every_option_is_documented(name):
    command = typer.main.get_command(cli.app).commands[name]
    typed = {p.name: p for p in command.params}
    own = {p.name: p.default for p in inspect.signature(ALL[name]).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for option, default in own.items():
        shown = list(as_texts(default)) if option in ("combiners",) else default
        assert typed[option].default == shown
        assert typed[option].help
    if name in COMMANDS:
        for option in Selection.__annotations__:
            assert typed[option].default == ("serial" if option == "scheduler" else None)
            assert typed[option].help


@pytest.mark.parametrize("name", COMMANDS)
def test_paths_dumps_and_lists_are_all_taken(run, name):
    dump = open_dump(run)
    options = {**QUICK.get(name, {}), "stage": "late"}
    expected = ALL[name](run, **options).tables["main"]
    for source in (Path(run), dump, [run], [dump]):
        pd.testing.assert_frame_equal(ALL[name](source, **options).tables["main"], expected)


@pytest.mark.parametrize("name", OF_RUNS)
def test_runs_are_taken_as_paths_and_lists(name, tmp_path):
    run = evaluate(tmp_path / "run", ramp(0.8))
    expected = ALL[name](str(run)).numbers
    for source in (Path(run), [run], (str(run),)):
        pd.testing.assert_frame_equal(ALL[name](source).numbers, expected)


@pytest.mark.parametrize(
    ("single", "several"),
    [
        ({"stage": "late"}, {"stage": ["late"]}),
        ({"snapshot": 1}, {"snapshot": ["1"]}),
        ({"snapshot": "0,2"}, {"snapshot": [0, 2]}),
        ({"tasks": "push-v3,reach-v3"}, {"tasks": ["push-v3", "reach-v3"]}),
    ],
)
def test_texts_numbers_and_lists_mean_the_same(run, single, several):
    a, b = (toppo_diag.heatmaps(run, **options).tables["main"] for options in (single, several))
    pd.testing.assert_frame_equal(a, b)


def test_combiners_are_told_apart_by_commas_semicolons_and_lists(run):
    wanted = ["mean", "cagrad:c=0.4,rescale=false"]
    rows = [
        toppo_diag.replay(run, stage="late", combiners=given).numbers["combiner"].tolist()
        for given in (wanted[:1], "mean,fairgrad:alpha=2", "mean;fairgrad:alpha=2", ["mean", "fairgrad:alpha=2"])
    ]
    assert rows == [["mean"], *[["mean", "fairgrad:alpha=2"]] * 3]


def test_a_product_has_frames_notes_and_a_figure(run, tmp_path):
    product = toppo_diag.replay(run, combiners=["fairgrad", "pcgrad"])
    assert list(product.tables) == ["main", "steps"]
    assert set(product.numbers["combiner"]) == {"fairgrad:alpha=1", "pcgrad"}
    assert product.tables["main"]["weight"].dtype == np.float64
    assert product.notes
    figure = product.figure()
    assert figure is not product.figure()
    saved = product.save(tmp_path, ["png"])
    assert [path.suffix for path in saved] == [".png", ".csv", ".csv"]
    pd.testing.assert_frame_equal(pd.read_csv(saved[1]), product.tables["main"], check_dtype=False)


def test_a_figure_needs_no_style_of_its_caller_and_leaves_none(run):
    before = dict(mpl.rcParams)
    product = toppo_diag.heatmaps(run)
    plain = product._repr_html_()
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert product._repr_html_() == plain
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_the_picture_the_numbers_and_the_notes_as_text(run):
    product = toppo_diag.heatmaps(run)
    shown = product._repr_html_()
    assert shown.count("<img ") == 1
    assert "data:image/png;base64," in shown
    assert "<table" in shown
    hostile = toppo_diag.Product("<script>", None, {"": []}, [{"task": "<b>x</b>"}], notes=["<i>"], failures=["<u>"])
    shown = hostile._repr_html_()
    for tag in ("<script>", "<b>x</b>", "<i>", "<u>"):
        assert tag not in shown


def test_a_product_without_a_picture_says_so(tmp_path):
    product = toppo_diag.compare(evaluate(tmp_path / "run", ramp(0.8)))
    with pytest.raises(DiagnosticError, match=r"compare-run has no figure; its numbers are in `tables`"):
        product.figure()
    assert "<img" not in product._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "soon"}, "unknown stage 'soon'"),
        ({"stage": "late", "steps": 3}, "`stage` and `steps` both choose snapshots"),
        ({"tasks": "reech"}, "`tasks=reech`"),
        ({"layer": "nosuch"}, "`layer=nosuch`"),
        ({"scheduler": "threads:0"}, "`scheduler=threads:0`"),
        ({"colour": "red"}, "unknown option `colour`"),
    ],
)
def test_a_wrong_option_is_one_line_without_a_flag(run, options, message):
    with pytest.raises(UsageError) as raised:
        toppo_diag.heatmaps(run, **options)
    assert message in str(raised.value)
    assert "--" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trap", {"starved_snapshots": 0}),
        ("trap", {"starved_share": float("nan")}),
        ("weights", {"window": 0}),
        ("weights", {"window": "ten"}),
        ("invariance", {"tol": -1.0}),
    ],
)
def test_a_number_out_of_range_is_one_line(run, name, options):
    with pytest.raises(UsageError, match="`" + next(iter(options))):
        ALL[name](run, **options)


def test_no_dump_at_a_path_and_no_path_at_all(tmp_path):
    with pytest.raises(DumpError):
        toppo_diag.heatmaps(tmp_path / "nosuch")
    for sources in ([], 3, [3]):
        with pytest.raises((UsageError, TypeError)):
            toppo_diag.heatmaps(sources)


def test_importing_the_package_loads_neither_torch_nor_a_plot_library():
    heavy = "torch", "matplotlib", "zarr", "scipy", "pandas", "xarray"
    code = f"import sys, toppo_diag; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_number_and_its_range_share_a_column_on_a_screen():
    rows = [
        {"side": "critic", "spread": 190.2, "spread_low": 6.618, "spread_high": 3282.0, "n": 3},
        {"side": "actor", "spread": 3.0, "spread_low": 3.0, "spread_high": 3.0, "n": 1},
    ]
    assert table_lines(rows) == [
        "side    spread                 n",
        "critic  190.2 (6.618 to 3282)  3",
        "actor   3                      1",
    ]

"""What is asked: options of wrong types and sizes, names of tasks and files, manifests that reach too far."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args, get_origin

import numpy as np
import pytest

import toppo_diag
from tests.diag import runs
from tests.diag.evaluated import MT10, evaluate, flat
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from toppo_diag.batch.manifest import read_manifest
from toppo_diag.commands import ALL, COMMANDS
from toppo_diag.commands.checking import option_types
from toppo_diag.errors import UsageError
from toppo_diag.request import file_part, name_problem, several, stem

NUMBERS = [
    (name, option)
    for name, command in {**ALL, "figures": toppo_diag.figures, "watch": toppo_diag.watch}.items()
    for option, hint in option_types(command).items()
    if get_origin(hint) is Annotated
]


def test_every_numeric_option_has_bounds():
    """Each number of each command states its least and greatest value in its signature."""
    assert ("weights", "window") in NUMBERS
    for name, command in {**ALL, "figures": toppo_diag.figures, "watch": toppo_diag.watch}.items():
        for option, hint in option_types(command).items():
            assert hint not in (int, float), f"{name} {option}: no bounds"


@pytest.mark.parametrize("value", ["-1", "-1e300", "1e300", "nan", "inf", "x", "9" * 400, ""])
@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_that_makes_no_sense_is_one_line(diag, run, name, option, value):  # noqa: F811
    source = () if name == "figures" else (run,)
    code, _, err = diag(name, *source, f"--{option.replace('_', '-')}={value}")
    assert (code, err.count("\n")) == (2, 1), err
    assert option.replace("_", "-") in err
    assert len(err) < 700


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "options",
    [{"side": 5}, {"stage": {"a": 1}}, {"tasks": [["push"]]}, {"layer": ["out"]}, {"scheduler": 3}, {"steps": True}],
)
def test_an_option_of_a_wrong_type_is_one_line(run, name, options):
    with pytest.raises(UsageError, match=f"`{next(iter(options))}=") as raised:
        ALL[name](run, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("choice", ["1:0", "3:1", "-1:-2", "5", "-6", "0:1:2", "9" * 5000, "0.5", "x", "1:", ":"])
def test_a_choice_of_snapshots_that_holds_none_is_one_line(diag, run, choice):  # noqa: F811
    code, _, err = diag("norms", run, f"--snapshot={choice}", "--format", "svg")
    assert (code, err.count("\n")) == (2, 1), err
    assert len(err) < 400


def test_steps_far_beyond_the_run_are_nearest_to_its_last_snapshot(run):
    far, near = (toppo_diag.norms(run, steps=steps).tables["main"] for steps in (10**20, 2_500_000))
    np.testing.assert_array_equal(far["norm"], near["norm"])
    with pytest.raises(UsageError, match="has no snapshot within steps"):
        toppo_diag.norms(run, steps=f"{10**20}:{10**21}")


# --- tasks


def test_a_task_is_found_by_its_short_name_in_every_command(run):
    for name in COMMANDS:
        options = {"combiners": "fairgrad"} if name in ("invariance", "replay") else {}
        short, whole = (ALL[name](run, tasks=t, side="critic", **options) for t in ("push,reach", "push-v3,reach-v3"))
        assert short.tables["main"].equals(whole.tables["main"]), name


@pytest.mark.parametrize("option", ["tasks", "stage", "snapshot", "steps"])
def test_a_list_of_nothing_is_refused(run, option):
    for nothing in (",", " , ", [""]):
        with pytest.raises(UsageError, match="names nothing; give a name, or leave the option out"):
            toppo_diag.norms(run, **{option: nothing})
    assert len(toppo_diag.norms(run, **{option: None}).numbers)


def test_runs_of_one_name_in_other_directories_write_other_files(tmp_path):
    made = {}
    for place in "abc":
        path = runs.record(tmp_path / place / "run", snapshots=2, bare=True)
        made[place] = str(path)
    first = toppo_diag.heatmaps([made["a"], made["b"]], side="critic", stage="early").name
    assert first != toppo_diag.heatmaps([made["a"], made["c"]], side="critic", stage="early").name


def test_curves_take_tasks_too(tmp_path):
    path = evaluate(tmp_path / "a", [np.zeros(10), np.linspace(0, 0.9, 10)])
    product = toppo_diag.curves(path, tasks="push,reach", figure="per-task")
    assert list(product.numbers["task"]) == ["reach-v3", "push-v3"]
    means = toppo_diag.curves(path, tasks=[MT10[1], "reach"])
    assert means.numbers["final"].item() == pytest.approx(5.0)  # of 0 % and 10 %
    assert list(means.tables) == ["main"]  # published numbers are of all tasks
    assert toppo_diag.curves(path).tables.keys() == {"main", "baselines"}


@pytest.mark.parametrize("tasks", ["reach,reach", "reach,reach-v3", "reach-v3,push,reach-v3"])
def test_a_task_named_twice_is_refused(run, tmp_path, tasks):
    path = evaluate(tmp_path / "a", flat(0.0, 0.5))
    for name, source in (*((name, run) for name in COMMANDS), ("curves", path)):
        with pytest.raises(UsageError, match="names reach-v3 twice; name each task once"):
            ALL[name](source, tasks=tasks)


def test_combiners_may_be_given_again_and_with_commas(diag, run):  # noqa: F811
    for given in (("mean,pcgrad",), ("mean", "pcgrad"), ("mean;pcgrad",)):
        spelled = [word for value in given for word in ("--combiners", value)]
        code, out, _ = diag("replay", run, *spelled, "--stage", "late", "--format", "svg", "--json")
        assert code == 0
        assert [n["combiner"] for n in json.loads(out)["numbers"]] == ["mean", "pcgrad"]
    code, out, _ = diag("replay", run, "--combiners", "cagrad:c=0.4", "--combiners", "mean", "--json")
    assert [n["combiner"] for n in json.loads(out)["numbers"]] == ["cagrad:c=0.4", "mean"]


@pytest.mark.parametrize("tasks", ["b,red, blue", "b,red,blue", ["b", "red, blue"]])
def test_a_task_with_a_comma_in_its_name_is_found(diag, tmp_path, tasks):  # noqa: F811
    run = str(runs.record(tmp_path / "comma", tasks=("red, blue", "b", "red", "walk-v2"), snapshots=2))
    assert list(toppo_diag.norms(run, tasks=tasks).tables["main"]["task"].unique()) == ["b", "red, blue"]
    assert diag("norms", run, "--tasks", "red, blue,walk-v2", "--format", "svg")[0] == 0
    with pytest.raises(UsageError, match="has no task 'walk'"):  # whose version is a part of its name
        toppo_diag.norms(run, tasks="walk")


# --- names of files


def test_different_questions_write_different_files(run, ln_run):
    asked = [
        *({}, {"stage": "early"}, {"stage": "late"}, {"snapshot": -1}, {"snapshot": "1:2"}, {"snapshot": "1,2"}),
        *({"steps": 500_000}, {"tasks": "reach,push"}, {"tasks": "push,reach"}, {"layer": "out"}, {"side": "actor"}),
    ]
    for name in COMMANDS:
        options = {"combiners": "fairgrad"} if name in ("invariance", "replay") else {}
        # nobody recorded weights of the actor
        fit = [choice for choice in asked if name != "weights" or choice != {"side": "actor"}]
        names = [ALL[name](run, **options, **choice).name for choice in fit]
        assert len(set(names)) == len(fit), names
        assert not [n for n in names if name_problem(n)]
    assert toppo_diag.weights(run, window=3).name != toppo_diag.weights(run).name
    assert toppo_diag.weights(run, window=10).name == toppo_diag.weights(run).name == "weights-fg"
    assert toppo_diag.heatmaps([run, ln_run]).name == "heatmaps-critic-fg+mean-ln"
    assert toppo_diag.heatmaps(run, tasks=["reach", "push"]).name == "heatmaps-critic-fg-tasks-reach+push"


def test_runs_are_in_the_names_of_their_tables_and_curves(tmp_path):
    a, b = (evaluate(tmp_path / name, flat(0.0, 0.5), seed=n) for n, name in enumerate("ab"))
    for name in ("curves", "compare", "tables"):
        assert len({ALL[name](runs).name for runs in (a, b, [a, b])}) == 3
    assert toppo_diag.curves(a, band="sem").name != toppo_diag.curves(a).name


def test_a_name_is_chosen_and_stays_in_its_directory(diag, run, tmp_path):  # noqa: F811
    code, out, _ = diag("norms", run, "--name", "mine", "--format", "svg", "--json")
    assert code == 0
    assert json.loads(out)["files"] == [f"figures/out/mine{end}" for end in (".svg", ".csv", "-aggregators.csv")]
    for name in ("../x", "/x", "a/b", "..", ".x", "", "a\nb", "x" * 300, "a\\b", "c:x"):
        code, _, err = diag("norms", run, f"--name={name}")
        assert (code, err.count("\n")) == (2, 1), name
        with pytest.raises(UsageError, match="`name="):
            toppo_diag.norms(run).save(tmp_path, name=name)
    assert not (tmp_path / "x.csv").exists()


def test_parts_of_names_are_plain_short_and_distinct():
    texts = ["../../x", "a/b", "a_b", "a\\b", "\n", "..", "é", "x" * 500, "y" * 500, "2:5", "a b"]
    parts = [file_part(text) for text in texts]
    assert len(set(parts)) == len(texts)
    assert not [part for part in parts if name_problem(f"x-{part}")]
    assert several(["a", "b"]) == "a+b"
    assert len(several([f"run{n}" for n in range(100)])) < 70


def test_a_product_with_a_name_that_leaves_the_directory_is_not_saved(tmp_path):
    product = toppo_diag.Product("../x", None, {"": [{"a": 1}]}, [])
    with pytest.raises(toppo_diag.DiagnosticError, match="cannot name files"):
        product.save(tmp_path / "out")
    assert not (tmp_path / "x.csv").exists()


# --- manifests


@pytest.fixture
def manifest(tmp_path: Path, archive: Path) -> Path:
    (tmp_path / "m").mkdir()
    shutil.copy(archive, tmp_path / "m" / "fg.h5")
    return tmp_path / "m" / "paper.toml"


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a\\\\b", "a\\nb", " x", "x" * 300])
def test_an_entry_stays_in_its_directory(diag, manifest, name):  # noqa: F811
    manifest.write_text(f'[figures."{name}"]\ncommand = "norms"\ndumps = ["fg.h5"]\n')
    code, _, err = diag("figures", manifest)
    assert (code, "the entry's name names its files" in err) == (2, True), err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('command = "norms"\nside = 5', "`side=5`: give a text"),
        ('command = "invariance"\ntol = "x"', "tol x: give a finite number"),
        ('command = "weights"\nwindow = 0', "window 0: must be at least 1"),
        ('command = "weights"\nwindow = 1.5', "window 1.5: give a whole number"),
        ('command = "weights"\nwindow = true', "window True: give a whole number"),
        ('command = "weights"\nwindow = 99999999999999999999999999999999999', "must be at most 1e+06"),
        ('command = "norms"\nstage = [["early"]]', "stage"),
        ('command = "norms"\ntasks = {a = 1}', "tasks"),
        ('command = ["norms"]', "unknown command"),
        ('command = "norms"\nscheduler = 3', "scheduler 3: give a text"),
        ('command = "norms"\nnosuch = 3', "norms has no option 'nosuch'"),
        ('command = "norms"\nside = ' + "[" * 5000 + "]" * 5000, "is not valid TOML"),
        ('command = "weights"\nwindow = ' + "9" * 5000, "is not valid TOML"),
    ],
)
def test_a_wrong_option_of_an_entry_is_one_line(diag, manifest, lines, message):  # noqa: F811
    manifest.write_text(f'[figures.x]\ndumps = ["fg.h5"]\n{lines}\n')
    code, _, err = diag("figures", manifest)
    assert (code, err.count("\n")) == (2, 1), err
    assert message.replace("`", "").replace("side=5", "side 5") in err
    assert len(err) < 600


@pytest.mark.parametrize("line", ["out = 5", 'out = ["a"]', "figures = 3", 'figures = ["a"]'])
def test_a_manifest_of_wrong_types_is_one_line(diag, manifest, line):  # noqa: F811
    text = f"{line}\n" + ("" if "figures" in line else '[figures.x]\ncommand = "norms"\ndumps = ["fg.h5"]\n')
    manifest.write_text(text)
    code, _, err = diag("figures", manifest)
    assert (code, err.count("\n")) == (2, 1), err


@pytest.mark.parametrize("dumps", ["5", "[5]", '[["fg.h5"]]', "{a = 1}", "[]", "true"])
def test_dumps_of_wrong_types_are_one_line(diag, manifest, dumps):  # noqa: F811
    manifest.write_text(f'[figures.x]\ncommand = "norms"\ndumps = {dumps}\n')
    code, _, err = diag("figures", manifest)
    assert (code, "names no dumps" in err) == (2, True), err


def test_the_signatures_of_the_commands_are_still_seen():
    """The checks wrap each command; help, manifest and documentation read its own signature and docstring."""
    for command in ALL.values():
        assert command.__doc__
        assert "options" not in inspect.signature(command).parameters
    assert get_args(option_types(ALL["weights"])["window"])[0] is int
    assert read_manifest(Path(__file__).parents[2] / "figures" / "paper.toml").entries


def test_a_side_named_like_a_path_stays_in_the_directory(tmp_path):
    """A header that somebody else wrote may name a side anything."""
    product = toppo_diag.heatmaps(str(runs.record(tmp_path / "r", snapshots=2)))
    files = replace(product, name=stem("heatmaps", "../../x", "run")).save(tmp_path / "out" / "deep", "svg")
    assert {file.resolve().parent for file in files} == {(tmp_path / "out" / "deep").resolve()}


def test_numbers_of_numpy_choose_as_numbers_do(run):
    chosen = toppo_diag.norms(run, snapshot=np.int64(1)).tables["main"]
    assert chosen.equals(toppo_diag.norms(run, snapshot=1).tables["main"])
    several = toppo_diag.norms(run, snapshot=[np.int64(0), np.int64(1)]).tables["main"]
    assert several.equals(toppo_diag.norms(run, snapshot="0,1").tables["main"])

"""The command line: what it makes, what it says, and what it says to wrong input."""

from __future__ import annotations

import csv
import json
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import typer

import toppo_diag
from tests.diag import runs
from toppo.combiners import make
from toppo.combiners.geometry import cosines
from toppo.combiners.scalars import STARVED
from toppo.dump import gram
from toppo_diag import cli, output
from toppo_diag.commands import ALL, COMMANDS


@pytest.fixture
def diag(monkeypatch, capsys, tmp_path):
    """Run `toppo-diag ...` in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toppo-diag", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as done:
            code = int(done.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def table(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


QUICK = {"invariance": ("--combiners", "fairgrad;mean")}
"""Options that make a command fast."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_writes_its_figure_and_its_numbers(diag, run, command):
    code, out, err = diag(command, run, "--json", *QUICK.get(command, ()))
    assert (code, err) == (0, "")
    answer = json.loads(out)
    kinds = [Path(file).suffix for file in answer["files"]]
    assert kinds[:2] == [".pdf", ".png"]
    assert set(kinds[2:]) == {".csv"}
    for file in answer["files"]:
        assert Path(file).parent == Path("figures/out")
        assert Path(file).stat().st_size > 100
    assert answer["numbers"]
    pdf = Path(answer["files"][0]).read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_draws_what_it_can_of_an_archive_and_of_a_bare_dump(diag, archive, bare_run, command):
    for path in (archive, bare_run):
        if command == "weights" and path == bare_run:
            continue  # which has none
        code, out, err = diag(command, path, "--format", "svg", *QUICK.get(command, ()))
        assert (code, err) == (0, "")
        assert ".svg" in out
    assert "note: " in out or command not in ("norms", "trap", "conflicts")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_one_layer_some_tasks_and_some_snapshots(diag, run, command):
    options = ("--layer", "trunk.0", "--tasks", "push-v3,reach-v3", "--snapshot", "1:2", "--format", "svg")
    code, _, err = diag(command, run, *options, "--side", "critic", *QUICK.get(command, ()))
    assert (code, err) == (0, "")


def test_numbers_of_one_layer_are_the_layers(diag, run):
    diag("heatmaps", run, "--layer", "trunk.0.bias", "--stage", "late", "--format", "svg", "--out", "o")
    rows = [r for r in table("o/heatmaps-critic-fg-late-trunk.0.bias.csv") if r["condition"] == "+PopArt"]
    J = runs.gradients("critic", runs.SNAPSHOTS - 1, 0)[:, 48:54].astype(np.float64)
    expected = cosines(J @ J.T)
    np.testing.assert_allclose([float(r["cosine"]) for r in rows], expected.ravel(), rtol=1e-10)


def test_a_dump_with_and_without_popart(diag, run, tmp_path):
    """With PopArt the vanilla column is raw = normalised x sigma^2; without, it is the dump itself."""
    off = runs.record(tmp_path / "off", popart="off")
    diag("heatmaps", run, "--format", "svg", "--out", "on")
    diag("heatmaps", off, "--format", "svg", "--out", "off-out")
    on_rows, off_rows = table("on/heatmaps-critic-fg.csv"), table("off-out/heatmaps-critic-off.csv")
    columns = {r["condition"] for r in on_rows}
    assert columns == {"vanilla", "+PopArt"}
    assert {r["condition"] for r in off_rows} == {"vanilla"}
    raw, normalised = ([r for r in on_rows if r["condition"] == c] for c in ("vanilla", "+PopArt"))
    assert off_rows == [{**r, "condition": "vanilla"} for r in normalised]
    cosine = [[float(r["cosine"]) for r in rows] for rows in (raw, normalised)]
    np.testing.assert_allclose(*cosine, rtol=0, atol=4e-16)
    for a, b in zip(raw, normalised, strict=True):
        stage = ["early", "mid", "late"].index(a["stage"])
        sigma = runs.sigma([0, 2, 4][stage], 4)[runs.TASKS.index(a["task"])]
        assert float(a["log10_G_ii"]) == pytest.approx(float(b["log10_G_ii"]) + 4 * np.log10(sigma), abs=1e-12)


def test_replay_agrees_with_training_and_compares_all(diag, run):
    code, out, _ = diag("replay", run, "--combiners", "all", "--format", "svg", "--json")
    assert code == 0
    numbers = {row["combiner"]: row for row in json.loads(out)["numbers"]}
    assert {"fairgrad:alpha=1", "fairgrad:alpha=2", "pcgrad", "mgda", "famo"} <= set(numbers)
    assert numbers["fairgrad:alpha=1"]["distance_to_training_high"] <= 1e-14
    assert numbers["mean"]["distance_to_training_high"] > 0.1
    rows = [r for r in table("figures/out/replay-critic-fg-combiners-all.csv") if r["combiner"] == "pcgrad"]
    seen = runs.VALUE_COEF**2 * gram(runs.gradients("critic", 0, 0))
    order = np.array([[j for j in range(4) if j != i] for i in range(4)])  # the recorded one
    expected = make("pcgrad").combine(seen, order=order).weights
    np.testing.assert_allclose([float(r["weight"]) for r in rows[:4]], expected, rtol=1e-12)


def test_invariance_passes_and_fails_by_tol(diag, run):
    code, out, err = diag("invariance", run, "--combiners", "mean;fairgrad", "--format", "svg", "--json")
    assert (code, err) == (0, "")
    numbers = [n for n in json.loads(out)["numbers"] if n["combiner"] == "fairgrad:alpha=1"]
    distance = next(n for n in numbers if n["quantity"] == "distance")
    assert distance["minibatches"] == runs.SNAPSHOTS * runs.MINIBATCHES
    assert distance["worst"] <= 1e-12
    assert distance["median"] <= 1e-14
    code, out, err = diag("invariance", run, "--combiners", "fairgrad", "--tol", "1e-30", "--format", "svg")
    assert code == 1
    assert "failed: distance" in err
    assert "fg, critic, snapshot" in err
    assert Path("figures/out/invariance-fg-tol-1e-30-combiners-fairgrad.svg").exists()  # a failed check is drawn too


def test_contributions_c_and_d_coincide(diag, run):
    code, out, _ = diag("contributions", run, "--format", "svg")
    assert code == 0
    rows = table("figures/out/contributions-critic-fg.csv")
    panels: dict[str, list[float]] = {}
    for row in rows:
        panels.setdefault(row["condition"], []).append(float(row["contribution"]))
    assert set(panels) == {"raw, mean", "+PopArt, mean", "raw, FG", "+PopArt, FG"}
    np.testing.assert_allclose(panels["raw, FG"], panels["+PopArt, FG"], rtol=1e-12)
    assert "(c) and (d) differ by at most" in out


def test_health_of_runs_with_different_tasks_is_one_picture_each(tmp_path):
    two = [runs.record(tmp_path / "a", snapshots=2), runs.record(tmp_path / "b", tasks=("x", "y"), snapshots=2)]
    together = toppo_diag.health(two, side="actor")
    alone = [toppo_diag.health(run, side="actor") for run in two]
    assert [row["run"] for row in together.headline] == ["a", "a", "b", "b"]
    assert together.headline == [row for product in alone for row in product.headline]
    assert len(together.figure().subfigs) == 2


def test_health_is_the_ladder_of_figure_d3(diag, run, ln_run):
    _, out, _ = diag("health", run, ln_run, "--format", "svg", "--json")
    numbers = json.loads(out)["numbers"]
    assert [n["condition"] for n in numbers] == ["vanilla", "+PopArt", "+PopArt+LN", "+PopArt+LN+FG"]
    assert numbers[0]["mean_abs_cosine"] == pytest.approx(numbers[1]["mean_abs_cosine"])
    assert numbers[2]["mean_abs_cosine"] == numbers[3]["mean_abs_cosine"]
    assert numbers[3]["top_1_mass"] < numbers[2]["top_1_mass"]


def test_trap_flags_the_starved(diag, ln_run, dead_run):
    _, out, _ = diag("trap", ln_run, "--format", "svg", "--starved-share", "0.1", "--json")
    flags = {n["task"]: n["flag"] for n in json.loads(out)["numbers"]}
    assert flags["reach-v3"] == "starved"  # its gradient is a hundredth of the longest, under the mean
    assert flags["drawer-close-v3"] == ""
    _, out, _ = diag("trap", dead_run, "--format", "svg", "--json")
    shares = {n["task"]: n["share"] for n in json.loads(out)["numbers"]}
    assert shares["reach-v3"] == pytest.approx(1 / 3)  # FairGrad shares among the living
    assert shares["door-open-v3"] == 0


def test_conflicts_rank_layers_where_there_are_any(diag, run, archive, tmp_path):
    _, out, _ = diag("conflicts", run, "--format", "svg", "--json")
    rows = table("figures/out/conflicts-fg-layers.csv")
    assert {r["layer"] for r in rows} == {"trunk.0.weight", "trunk.0.bias", "out"}
    scores = [float(r["conflict"]) for r in rows if r["side"] == "critic"]
    assert scores == sorted(scores, reverse=True)
    assert any("ranked over 3 snapshots; choose others with --snapshot" in note for note in json.loads(out)["notes"])
    for path, out in ((run, "a"), (archive, "b")):  # slabs, and Grams by layer
        diag("conflicts", path, "--snapshot", "0:4", "--name", "all", "--format", "svg", "--out", out)
    assert table("a/all-layers.csv") == table("b/all-layers.csv")
    _, out, _ = diag("conflicts", archive, "--format", "svg", "--out", "o", "--json")
    assert any(note.endswith("are ranked over 5 snapshots") for note in json.loads(out)["notes"])
    bare = runs.record(tmp_path / "bare", slabs=False, snapshots=1)
    _, out, _ = diag("conflicts", bare, "--format", "svg", "--out", "o", "--json")
    assert any("holds no Grams by layer and no slabs" in note for note in json.loads(out)["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("norms", "RUN", "--stage", "erly"), 2, "unknown stage 'erly': give early, mid, late"),
        (("norms", "RUN", "--stage", "early", "--snapshot", "1"), 2, "--stage and --snapshot both choose"),
        (("norms", "RUN", "--tasks", "reech"), 2, "has no task 'reech'"),
        (("norms", "RUN", "--side", "critics"), 1, "has no side 'critics'"),
        (("norms", "RUN", "--format", "gif"), 2, "--format gif: give some of pdf, png, svg"),
        (("norms", "RUN", "--scheduler", "slurm"), 2, "--scheduler slurm: give serial"),
        (("replay", "RUN", "LN"), 2, "replay draws one dump at a time"),
        (("norms", "RUN", "--out", "FILE"), 1, "cannot write FILE"),
        (("norms", "nowhere"), 1, "nowhere: no such file or directory"),
        (("replay", "RUN", "--combiners", "fairgard"), 2, "unknown combiner 'fairgard': did you mean 'fairgrad'?"),
        (("heatmaps", "RUN", "OTHER"), 2, "have different tasks"),
        (("heatmaps", "EMPTY"), 1, "holds no snapshot yet"),
        (("conflicts", "RUN", "--layer", "nope"), 2, "has no such layer"),
        (("norms", "H5", "--layer", "nope"), 2, "has no such layer"),
        (("invariance", "RUN", "--tol", "-1"), 2, "--tol"),
        (("figures", "none.toml"), 2, "cannot read none.toml"),
        (("watch", "nowhere"), 1, "nowhere"),
    ],
)
def test_wrong_input_is_one_line(diag, run, ln_run, archive, tmp_path, arguments, code, message):
    (tmp_path / "FILE").write_text("")
    places = {"RUN": run, "LN": ln_run, "H5": str(archive)}
    if "OTHER" in arguments:
        places["OTHER"] = str(runs.record(tmp_path / "other", tasks=("a", "b"), snapshots=1))
    if "EMPTY" in arguments:
        places["EMPTY"] = str(runs.record(tmp_path / "empty", snapshots=0, complete=False))
    found, _, err = diag(*(places.get(a, a) for a in arguments))
    assert (found, message in err) == (code, True), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_url_gives_the_same_numbers(diag, run):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(f"{run}/dump.zarr", "/bucket/fg/dump.zarr", recursive=True)
    assert diag("trap", "memory://bucket/fg", "--format", "svg", "--out", "a")[0] == 0
    assert diag("trap", run, "--format", "svg", "--out", "b")[0] == 0
    for file in Path("b").glob("*.csv"):
        assert file.read_bytes() == (Path("a") / file.name).read_bytes()


def test_common_tasks_make_different_dumps_alike(diag, run, tmp_path):
    other = runs.record(tmp_path / "other", tasks=("push-v3", "reach-v3", "x"), layernorm="critic", snapshots=3)
    code, _, err = diag("heatmaps", run, other, "--tasks", "reach-v3,push-v3", "--format", "svg")
    assert (code, err) == (0, "")


def test_ctrl_c_leaves_no_half_written_figure(diag, run, tmp_path, monkeypatch):
    assert diag("norms", run, "--format", "png")[0] == 0
    figure = tmp_path / "figures/out/norms-fg.png"
    before = figure.read_bytes()

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(output.Path, "replace", interrupted)
    assert diag("norms", run, "--side", "actor", "--name", "norms-fg", "--format", "png")[0] == 130
    assert figure.read_bytes() == before
    assert not list(figure.parent.glob(".*partial"))


def test_help_of_a_command_shows_the_common_options(diag):
    code, out, _ = diag("invariance", "--help")
    assert code == 0
    common = ["--out", "--format", "--json", "--side", "--stage", "--snapshot", "--steps", "--tasks", "--layer"]
    for option in [*common, "--scheduler", "--tol", "--combiners"]:
        assert option in out


# --- several runs, and what is said where nothing can be drawn


@pytest.mark.parametrize("command", ["norms", "trap", "weights", "conflicts"])
def test_several_runs_are_drawn_below_each_other_with_the_same_axes(diag, run, ln_run, command):
    product, *alone = (ALL[command](dumps) for dumps in ([run, ln_run], run, ln_run))
    assert product.name == f"{command}-fg+mean-ln"
    for suffix, rows in product.rows.items():
        parts = [[row for row in rows if row["run"] == name] for name in ("fg", "mean-ln")]
        for part, single in zip(parts, alone, strict=True):
            shown = [{k: v for k, v in row.items() if k != "run"} for row in part]
            assert json.dumps(shown, default=str) == json.dumps(list(single.rows[suffix]), default=str)
    figure = product.figure()
    first, second = figure.subfigs
    assert [part.get_suptitle() for part in figure.subfigs] == ["fg", "mean-ln"]
    assert first.get_figure(root=True).get_size_inches()[0] == alone[0].figure().get_size_inches()[0]
    if command != "conflicts":  # whose panels lie deeper
        for a, b in zip(first.axes, second.axes, strict=True):
            assert a.get_ylim() == b.get_ylim()
    code, _, err = diag(command, run, run)
    assert (code, "is given twice; give each run once" in err) == (2, True), err


@pytest.mark.parametrize("command", ["norms", "health", "trap", "weights", "conflicts"])
def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, command):
    paths = [runs.record(tmp_path / place / "same", snapshots=2) for place in "ab"]
    product = ALL[command]([str(path) for path in paths])
    rows = [*product.headline, *(row for table in product.rows.values() for row in table)]
    assert {row["run"] for row in rows if row.get("run")} == {str(path / "dump.zarr") for path in paths}


def test_the_columns_of_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = [str(runs.record(tmp_path / place / "same", snapshots=2) / "dump.zarr") for place in "ab"]
    for command in ("heatmaps", "health"):
        conditions = {row["condition"] for row in ALL[command](paths).headline}
        assert all(any(path in condition for condition in conditions) for path in paths), conditions


def test_the_trap_calls_a_task_starved_where_the_report_does():
    assert signature(ALL["trap"]).parameters["starved_share"].default == STARVED


def test_a_wrong_path_is_looked_for_before_any_work(diag, monkeypatch):
    monkeypatch.setattr("toppo_diag.analysis.invariance.synthetic", lambda _: pytest.fail("worked first"))
    code, _, err = diag("invariance", "nosuch")
    assert (code, err.count("\n"), "nosuch: no such file" in err) == (1, 1, True), err


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tls://x:1", "needs certificates"),
        ("dir://x", "no address of a dask scheduler; it begins with tcp://"),
        ("tcp://", "no address of a dask scheduler"),
        ("nosuch.json", "no such scheduler file"),
        ("empty.json", "is not the scheduler file of a dask scheduler"),
        ("list.json", "is not the scheduler file of a dask scheduler"),
        ("deep.json", "is not the scheduler file of a dask scheduler"),
        ("odd.json", "its address 'dir://x' is none of a dask scheduler"),
        ("threads:0", "the number of workers must be 1 or more, up to 1024"),
        ("processes:99999999999999999999", "the number of workers must be 1 or more, up to 1024"),
    ],
)
def test_a_scheduler_that_is_none_is_one_line(diag, run, tmp_path, scheduler, message):
    files = {"empty": "{}", "list": "[1]", "deep": "[" * 10_000, "odd": '{"address": "dir://x"}'}
    for name, text in files.items():
        (tmp_path / f"{name}.json").write_text(text)
    if scheduler.startswith("tls"):
        pytest.importorskip("distributed")
    code, _, err = diag("norms", run, "--layer", "out", "--scheduler", scheduler)
    assert (code, err.count("\n"), message in err) == (2, 1, True), err


def test_no_arguments_show_the_help_and_no_empty_error(diag):
    code, out, err = diag()
    assert (code, err) == (2, "")
    assert "Usage" in out


def test_commands_take_several_dumps_or_one(diag):
    """What the usage line shows of it is typer's own: 0.16 leaves out the dots after a name that may be repeated."""
    for command in COMMANDS:
        (argument,) = (p for p in typer.main.get_command(cli.app).commands[command].params if p.name == "dumps")
        assert (argument.nargs == -1) == (command not in ("replay", "contributions"))


def test_verify_of_something_else_does_not_recommend_verify(diag, tmp_path):
    (tmp_path / "README.md").write_text("text")
    code, _, err = diag("verify", "README.md")
    assert (code, err.count("\n"), "toppo-diag verify" in err) == (1, 1, False), err
    assert err == diag("info", "README.md")[2]


def test_figures_without_manifest_and_archives_say_what_to_type(diag):
    code, _, err = diag("figures")
    assert (code, err.count("\n")) == (2, 1)
    assert "run this in a clone of toppo, or give a manifest of your own, as `toppo-diag figures my.toml`" in err


def test_open_shows_the_picture(diag, run, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(cli.typer, "launch", lambda file: shown.append(file) or 0)
    assert diag("norms", run, "--open")[0] == 0
    assert diag("norms", run, "--open", "--format", "svg")[0] == 0
    assert shown == ["figures/out/norms-fg.png", "figures/out/norms-fg.svg"]
    monkeypatch.setattr(cli.typer, "launch", lambda file: 1)
    code, _, err = diag("norms", run, "--open", "--format", "svg")
    assert (code, err) == (0, "note: this system has no program to open figures/out/norms-fg.svg\n")


def test_json_has_null_where_a_number_is_not_finite(diag, run):
    code, out, _ = diag("replay", run, "--combiners", "mgda", "--json")
    answer = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert code == 0
    assert answer["numbers"][0]["spread"] is None  # MGDA leaves tasks out, so the spread is infinite

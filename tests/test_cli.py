"""What the command line says to wrong input: one line that names the thing and the mend, and a non-zero exit."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from toppo import cli
from toppo.training.run import start
from toppo_diag import cli as diag


def run(module, arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["toppo", *arguments])
    try:
        module.main()
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def toppo(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run(cli, arguments, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "MT11"), "unknown benchmark or task 'MT11': did you mean 'MT10'?"),
        (("--benchmark", "MT10,reach-v3"), "--benchmark MT10,reach-v3: MT10 is a whole benchmark; give MT10 alone"),
        (("--seed", "4294967296"), "--seed 4294967296: must be at most 4,294,967,295"),
        (("--hidden", "10000000000"), "none above 16,384"),
        (("--benchmark", "reach-v3,pusch-v3"), "unknown task 'pusch-v3': did you mean 'push-v3'?"),
        (("--critic-combiner", "fairgard"), "'fairgrad'"),
        (("--preset", "topo"), "unknown preset 'topo': did you mean 'toppo'?"),
        (("--dump-evry", "5"), "--dump-every"),
        (("--dump-every", "0"), "--dump-every 0: must be at least 1"),
        (("--dump-every", "five"), "--dump-every"),
        (("--env-steps", "0"), "--env-steps 0: must be at least 1"),
        (("--popart-beta", "0"), "--popart-beta 0.0: must lie above 0"),
        (("--entropy-coef", "nan"), "give a finite number"),
        (("--config", "none.toml"), "cannot read none.toml"),
        (("--device", "tpu"), "--device tpu: give auto, cpu, cuda or cuda:N"),
        (("--name", "a/b"), "--name 'a/b'"),
        (("--hidden", "400,x"), "--hidden 400,x"),
        (("--env-steps", "150000"), "nearest: 200000"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(toppo, tmp_path, arguments, message):
    code, _, err = toppo("train", *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "dumps").exists()


@pytest.mark.parametrize("name", [".", "..", "...", "../x", "/tmp/x", "", "a\nb", "a/../..", "x/"])
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_name_that_leads_out_of_dumps_is_refused(toppo, tmp_path, name, dry_run):
    """`--name .` was told to delete dumps, with every run in it."""
    kept = tmp_path / "dumps" / "run1" / "config.toml"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    code, _, err = toppo("train", "--benchmark", "reach-v3", "--name", name, *dry_run)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --name {name!r}: use letters")
    assert "delete" not in err
    assert [path.name for path in tmp_path.rglob("*")] == ["dumps", "run1", "config.toml"]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_name_that_is_taken_is_refused_in_a_dry_run_too(toppo, tmp_path, dry_run):
    (tmp_path / "dumps" / "empty").mkdir(parents=True)
    (tmp_path / "dumps" / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "link"):
        code, _, err = toppo("train", "--benchmark", "reach-v3", "--name", name, *dry_run)
        assert (code, err) == (2, f"error: dumps/{name} exists and holds no run: give another --name\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("resume", "a\nb"), "a\\nb is not a run"),
        (("resume", "a\x1b[31mb"), "a\\x1b[31mb is not a run"),
        (("evaluate", "a\rb"), "a\\rb is not a run"),
        (("train", "--config", "a\u2028b\u202e"), "cannot read a\\u2028b\\u202e"),
        (("train", "--preset", "x\ny"), "unknown preset 'x\\ny'"),
        (("train", "--hidden", "4\x07"), "--hidden 4\\x07: "),
        (("sweep", "a\nb.toml"), "cannot read a\\nb.toml"),
        (("resume", "a\udc80"), "a\\udc80 is not a run"),  # a byte that is not UTF-8
        (("x\ny",), "x\\ny"),
    ],
)
def test_one_line_is_one_line_whatever_is_named(toppo, arguments, shown):
    code, _, err = toppo(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert shown in err
    assert err.rstrip("\n").isprintable()


def test_cuda_asked_for_but_absent(toppo):
    torch = pytest.importorskip("torch")  # here, so that tests without torch can import this module
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    code, _, err = toppo("train", "--device", "cuda")
    assert (code, "no CUDA device is available" in err) == (2, True)


def test_a_disk_too_small_is_said_before_training(toppo, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    code, _, err = toppo("train", "--dump-every", "5")
    assert code == 1
    assert "the dump needs about 4.1 GB" in err
    assert "has 0.0 GB free" in err
    assert not (tmp_path / "dumps").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_an_unwritable_directory(toppo, tmp_path):
    tmp_path.chmod(0o500)
    code, _, err = toppo("train")
    assert (code, "cannot write dumps/run1" in err) == (2, True)


def test_a_file_in_the_way_of_the_directory(toppo, tmp_path):
    (tmp_path / "dumps").write_text("")
    code, _, err = toppo("train", "--benchmark", "reach-v3")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot write dumps/run1" in err


def test_resume_and_evaluate_of_nothing(toppo, tmp_path):
    for command in ("resume", "evaluate"):
        code, _, err = toppo(command, "dumps/none")
        says = "is not a run: it has no config.toml; give a run directory such as dumps/run1"
        assert (code, err) == (2, f"error: dumps/none {says}\n")


def test_a_name_in_place_of_a_path(toppo, tmp_path):
    (tmp_path / "dumps/mine").mkdir(parents=True)
    for command in ("resume", "evaluate"):
        code, _, err = toppo(command, "mine")
        assert (code, err) == (2, "error: mine is not a run: it has no config.toml; did you mean dumps/mine?\n")


def test_a_damaged_configuration_is_refused(toppo, tmp_path):
    run = tmp_path / "dumps" / "r"
    run.mkdir(parents=True)
    for content, message in ((b"", "is damaged: it lacks benchmark"), (b"seed = \xff", "not valid TOML")):
        (run / "config.toml").write_bytes(content)
        code, _, err = toppo("resume", "dumps/r")
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    (run / "config.toml").unlink()
    code, _, err = toppo("train", "--benchmark", "reach-v3", "--name", "r")
    assert (code, err) == (2, "error: dumps/r exists and holds no run: give another --name\n")


@pytest.mark.parametrize("refused", [False, True])
def test_training_without_torch_says_so(toppo, monkeypatch, refused):
    here = sys.version_info[:2]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(start, "NOT_FOR_META_WORLD", here if refused else (99, 0))
    more = f" with Python before {here[0]}.{here[1]}, because Meta-World refuses later ones" * refused
    code, _, err = toppo("train")
    assert (code, err) == (2, f"error: training needs torch and metaworld: pip install 'toppo[train]'{more}\n")


def test_params_prints_table_b2(toppo):
    code, out, _ = toppo("params")
    assert code == 0
    for count in ("684,865 (685K)", "717,105 (717K)", "683,645 (684K)", "715,805 (716K)"):
        assert count in out


def test_dry_run_prints_the_plan_and_makes_nothing(toppo, tmp_path):
    code, out, _ = toppo("train", "--benchmark", "reach-v3,push-v3", "--dump-every", "5", "--dry-run")
    assert code == 0
    for text in (
        'critic_combiner = "fairgrad:alpha=1"',
        "200 of 20,000 steps",
        "51, 50 episodes",
        "40, 5 minibatches",
        "GB",
        " environment and ",
    ):
        assert text in out
    assert not list(tmp_path.iterdir())


@pytest.fixture
def not_trained(monkeypatch):
    """Train nothing after a run was made."""
    from toppo.training.run import start
    from toppo.training.run.directory import Run

    for name in ("collects", "mean_success"):
        monkeypatch.setattr(Run, name, 0)
    monkeypatch.setattr(start, "_train_to_end", lambda run, *_: run)


def test_what_a_long_run_takes_and_a_short_one_are_said_before_it_starts(toppo, tmp_path, not_trained):
    small = ("--benchmark", "reach-v3,push-v3", "--hidden", "8", "--device", "cpu", "--dump-every", "5")
    code, out, err = toppo("train", *small)
    assert (code, err) == (0, "")
    line = out.splitlines()[0]
    assert re.match(
        r"200 collects take about [\d.]+ (min|h) to [\d.]+ (min|h|days) on this machine, and \d\.\d\d GB of disk\. ",
        line,
    )
    assert "`" not in line
    told = line.partition("For a short first run give ")[2].split()
    assert told[:2] == ["--env-steps", "10000"]
    code, out, err = toppo("train", *small, *told)  # what it says can be typed
    assert (code, err) == (0, "")
    assert "collects take" not in out  # short
    from toppo.training.run.directory import Run

    assert Run(tmp_path / "dumps" / "run2").config.env_steps == 10_000


def test_measuring_before_a_run_changes_nothing_of_it(tmp_path, monkeypatch):
    from rich.console import Console

    from toppo.training.run import start
    from toppo.training.run.checkpoint import learner_state

    states = []
    monkeypatch.setattr(start, "_train_to_end", lambda run, _, learner, __: states.append(learner_state(learner)))
    monkeypatch.chdir(tmp_path)
    for console in (False, Console(file=io.StringIO())):
        start.train(benchmark="reach-v3", hidden=8, device="cpu", progress=console)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name])


def test_a_dry_run_of_very_many_steps_ends_at_once(toppo):
    small = ("--benchmark", "reach-v3", "--hidden", "8", "--repeats", "1", "--minibatches", "8", "--device", "cpu")
    code, out, err = toppo("train", *small, "--env-steps", "1000000000000000", "--dump-every", "1", "--dry-run")
    assert (code, err) == (0, "")
    assert "100,000,000,000 of 10,000 steps" in out


def test_the_closest_name_is_never_the_name_itself():
    from toppo.common.names import closest, suggestion

    assert closest("mean", ["mean"]) is None
    assert suggestion("mean", ["mean", "mgda"]) != "did you mean 'mean'?"


def test_version_short_help_and_completion(toppo):
    from importlib.metadata import version

    assert toppo("--version") == (0, f"toppo {version('toppo')}\n", "")
    for arguments in (("-h",), ("--help",), ("train", "-h")):
        code, out, _ = toppo(*arguments)
        assert (code, "Usage: " in out) == (0, True)
    assert "--install-completion" in toppo("--help")[1]


def test_completion_knows_the_options():
    asked = {"_TOPPO_COMPLETE": "complete_bash", "COMP_WORDS": "toppo train --dump-ev", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['toppo']; from toppo.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | asked
    )
    assert done.stdout.split() == ["--dump-every"], done.stderr


@pytest.mark.parametrize("package", ["toppo", "toppo_diag"])
def test_help_imports_neither_torch_nor_metaworld_nor_matplotlib(package):
    """What keeps `toppo --help` under a second."""
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from {0}.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {{'torch', 'metaworld', 'matplotlib', 'zarr', 'xarray', 'scipy.optimize'}} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code.format(package)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_imports_without_torch():
    """The base install: combiners, dump and toolkit work where torch and Meta-World are missing."""
    code = (
        "import sys\n"
        "for name in ('torch', 'metaworld', 'gymnasium', 'torchjd'): sys.modules[name] = None\n"
        "import toppo.combiners, toppo.dump, toppo_diag.cli\n"
        "import numpy as np\n"
        "assert toppo.combiners.make('fairgrad').combine(np.eye(3)).weights.shape == (3,)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def toppo_diag(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run(diag, arguments, monkeypatch, capsys)


def test_diag_of_nothing(toppo_diag):
    code, _, err = toppo_diag("heatmaps", "dumps/none")
    assert code == 1
    assert err.startswith("error: ")
    assert "dumps/none" in err
    assert err.count("\n") == 1

"""What is published: the contents of wheel and sdist, and the programs of an installed wheel, away from the clone.

The installed tests borrow the dependencies of the environment that runs pytest, so they cost seconds. The one that
installs the dependencies too is marked slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest

from tests.diag.evaluated import evaluate

ROOT = Path(__file__).parents[2]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"

RECORD = """
import numpy as np
from toppo.dump import DumpWriter

rng = np.random.default_rng(0)
with DumpWriter.create("digits.zarr", tasks=["zero", "one", "two"], sides={"trunk": 12}) as dump:
    for step in range(5):
        dump.record(step=step, trunk=rng.standard_normal((3, 12)).astype(np.float32), loss=rng.random(3))
"""

MANIFEST = """
out = "out"
[figures.norms]
command = "norms"
dumps = ["digits.zarr"]
side = "trunk"
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel.

    Attributes:
        root: of the environment.
        directory: empty at first; programs run in it.
    """

    root: Path
    directory: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        """What a program of the environment prints; it must succeed."""
        code, out, err = self.end(program, *arguments)
        assert code == 0, out + err
        return out

    def end(self, program: str, *arguments: str | Path) -> tuple[int, str, str]:
        """How a program of the environment ends: its exit code, output and error output."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.root / SCRIPTS / program, *arguments],
            cwd=self.directory,
            env=outside,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    def files(self) -> set[str]:
        """What the programs left behind, relative to their directory."""
        return {path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of sdist and wheel; the wheel is built from the unpacked sdist, as an index would."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
        text=True,
    )
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with the dependencies of this one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    (packages,) = root.glob("[Ll]ib/**/site-packages")
    # Lines of a .pth file add directories, but not what .pth files in them add: an editable toppo stays out.
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(shared))
    _install(root, "--no-deps", "--no-index", wheel)
    return root


def _install(root: Path, *arguments: str | Path) -> None:
    interpreter = root / SCRIPTS / "python"
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *arguments], check=True)


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    return Installed(environment, tmp_path)


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return evaluate(tmp_path / "run1", np.linspace(0, 0.9, 6)[:, None].repeat(10, axis=1))


def test_the_wheel_holds_the_packages_and_the_paper_s_numbers(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        published = {name: file.read(name) for name in names if name.startswith("toppo_diag/paper/")}
        metadata = message_from_bytes(file.read(next(name for name in names if name.endswith("/METADATA"))))
    here = {
        f"toppo_diag/paper/{path.relative_to(ROOT / 'figures').as_posix()}": path.read_bytes()
        for path in [*(ROOT / "figures/published").iterdir(), ROOT / "figures/paper.toml"]
    }
    assert published == here
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("toppo", "toppo_diag")
        for pattern in ("*.py", "py.typed", "page.*", "*.js")
        for path in (ROOT / package).rglob(pattern)
    }
    # Nothing else: no tests, no archives, no docs.
    assert {name for name in names if ".dist-info/" not in name} == sources | set(here)
    assert {"toppo/py.typed", "toppo_diag/py.typed"} <= names
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == ("toppo", "MIT", ">=3.11")
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])
    assert wheel.stat().st_size < 1_000_000


def test_the_sdist_holds_what_the_wheel_is_made_of(dist: Path):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.split("/", 1)[1] for name in file.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "figures/paper.toml", "toppo/py.typed"} <= names
    assert {f"figures/published/{p.name}" for p in (ROOT / "figures/published").iterdir()} <= names
    assert not [name for name in names if name.endswith((".h5", ".png", ".pdf")) or name.startswith(("tests", "docs"))]


def test_the_index_would_take_both(dist: Path):
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()], check=True)


def test_the_installed_package_is_the_one_that_runs(installed: Installed):
    where = installed.run("python", "-c", "import toppo, toppo_diag; print(toppo.__file__, toppo_diag.__file__)")
    assert all(Path(path).is_relative_to(installed.root) for path in where.split())


@pytest.mark.parametrize("program", ["toppo", "toppo-diag"])
def test_both_programs_are_there(installed: Installed, program: str):
    assert "Usage" in installed.run(program, "--help")


def test_a_dump_recorded_in_python_is_drawn(installed: Installed):
    installed.run("python", "-c", RECORD)
    assert "5" in installed.run("toppo-diag", "info", "digits.zarr")
    installed.run("toppo-diag", "verify", "digits.zarr")
    made = json.loads(installed.run("toppo-diag", "heatmaps", "digits.zarr", "--side", "trunk", "--json"))["files"]
    assert {Path(name).suffix for name in made} == {".pdf", ".png", ".csv"}
    assert all((installed.directory / name).stat().st_size for name in made)
    installed.run("toppo-diag", "report", "digits.zarr")
    assert "report.html" in installed.files()


def test_a_manifest_of_one_s_own(installed: Installed):
    installed.run("python", "-c", RECORD)
    (installed.directory / "mine.toml").write_text(MANIFEST)
    installed.run("toppo-diag", "figures", "mine.toml")
    assert {"out/norms.png", "out/norms.pdf", "out/index.html", "out/report.html"} <= installed.files()
    installed.run("toppo-diag", "figures", "mine.toml", "--check")


def test_curves_of_a_run(installed: Installed, run_directory: Path):
    installed.run("toppo-diag", "curves", run_directory, "--format", "png")
    assert [name for name in installed.files() if name.endswith(".png")]


@pytest.mark.parametrize(("command", "made"), [("tables", "table-run1-d5.md"), ("compare", "compare-run1.csv")])
def test_published_numbers_stand_beside_a_run(installed: Installed, run_directory: Path, command: str, made: str):
    installed.run("toppo-diag", command, run_directory)
    assert f"figures/out/{made}" in installed.files()


def test_published_numbers_in_a_manifest(installed: Installed, run_directory: Path):
    (installed.directory / "mine.toml").write_text('[figures.tables]\ncommand = "tables"\nruns = ["run1"]\n')
    installed.run("toppo-diag", "figures", "mine.toml")
    assert [name for name in installed.files() if name.endswith(".tex")]


def test_the_paper_s_manifest_is_found(installed: Installed):
    """The archives that it names are not in the package."""
    code, _, err = installed.end("toppo-diag", "figures", "--only", "figure-2")
    assert code == 2
    assert "the paper's archives are not here (figures/data/mean-ln.h5)" in err.replace("\\", "/")


@pytest.mark.slow
def test_an_environment_with_nothing_else(wheel: Path, tmp_path: Path):
    """As a user has it: the wheel and what it asks for, from the package index."""
    venv.create(tmp_path / "environment", with_pip=False)
    _install(tmp_path / "environment", "--constraint", ROOT / "constraints.txt", wheel)
    (tmp_path / "empty").mkdir()
    alone = Installed(tmp_path / "environment", tmp_path / "empty")
    alone.run("python", "-c", RECORD)
    alone.run("toppo-diag", "heatmaps", "digits.zarr", "--side", "trunk")
    alone.run("toppo-diag", "solver-bench")
    code, _, err = alone.end("toppo", "train", "--name", "run1")
    assert (code, err) == (2, "error: training needs torch and metaworld: pip install 'toppo[train]'\n")
    assert not (alone.directory / "dumps").exists()

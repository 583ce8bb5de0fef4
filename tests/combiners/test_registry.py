from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

import toppo.combiners
from toppo.combiners import (
    Claims,
    Combination,
    Combiner,
    CombinerError,
    FairGrad,
    Mean,
    MissingPackageError,
    PCGrad,
    Record,
    make,
    names,
    parse_spec,
    register,
    registry,
)
from toppo.common.errors import ToppoError, UsageError


def test_a_spec_is_a_name_and_typed_options():
    assert make("fairgrad:alpha=2") == FairGrad(alpha=2.0)
    assert make("pcgrad:order=shared, reduction=sum") == PCGrad(order="shared", reduction="sum")
    assert parse_spec("fairgrad-paper:max_iterations=7")[1] == {"max_iterations": 7}


@pytest.mark.parametrize("name", names())
def test_the_canonical_spec_makes_the_same_combiner(name: str):
    combiner = make(name)
    assert make(combiner.spec) == combiner
    assert make(combiner.spec).spec == combiner.spec
    assert combiner.spec.split(":")[0] == name


def test_canonical_specs_keep_floats_exact():
    assert FairGrad(0.1 + 0.2).spec == "fairgrad:alpha=0.30000000000000004"
    assert FairGrad(1.0).spec == "fairgrad:alpha=1"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("fairgrid", "did you mean 'fairgrad'"),
        ("", "unknown combiner ''"),
        ("fairgrad:alpah=1", "did you mean 'alpha'"),
        ("fairgrad:alpha", "key=value"),
        ("fairgrad:alpha=one", "alpha takes a number"),
        ("fairgrad:alpha=0", "alpha must be a positive finite number"),
        ("fairgrad:alpha=1,alpha=2", "given twice"),
        ("fairgrad-paper:max_iterations=1.5", "max_iterations takes an integer"),
        ("pcgrad:order=any", "order is one of row, shared"),
        ("taskforce:tau=0", "tau must lie above 0"),
        ("taskforce:agents=ma,critics=shared", "give agents=ct or critics=own"),
        ("cagrad:c=-1", "c must be a finite number >= 0"),
        ("gradvac:beta=2", r"beta must be in \[0, 1\]"),
        ("nash-mtl:max_norm=0", "max_norm must be a positive"),
        ("dwa:period=0", "period must be a positive"),
        ("uw:lr=nan", "lr must be a positive"),
        ("famo:weight_decay=-1", "weight_decay must be a finite number >= 0"),
        ("mean:x=1", "it takes none"),
        ("torchjd:weighting=Krum", "weighting is one of"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec: str, says: str):
    with pytest.raises(UsageError, match=says) as caught:
        make(spec)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_errors_hold_their_data():
    with pytest.raises(UsageError) as caught:
        make("fairgrad:alpha=-1")
    assert (caught.value.option, caught.value.value) == ("alpha", -1.0)
    with pytest.raises(UsageError) as caught:
        make("pcgrad:order=any")
    assert (caught.value.option, caught.value.allowed) == ("order", ("row", "shared"))


def test_every_error_of_a_combiner_is_one_that_the_command_line_prints():
    assert issubclass(CombinerError, ToppoError)
    assert issubclass(CombinerError, ValueError)
    assert issubclass(MissingPackageError, ToppoError)
    assert issubclass(MissingPackageError, ImportError)


def test_the_package_exports_every_combiner():
    found = set()
    for module in pkgutil.walk_packages(toppo.combiners.__path__, "toppo.combiners."):
        if not module.name.endswith(".agents"):  # needs torch
            found |= {
                kind
                for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
                if issubclass(kind, Combiner) and kind.__module__ == module.name
            }
    exported = {getattr(toppo.combiners, name) for name in toppo.combiners.__all__}
    assert found <= exported
    assert {kind.name for kind in found - {Combiner}} == set(names())


# Combiners of others


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def a_combiner(name: object, kind: type[Combiner] = Combiner, **options: tuple[type, object]) -> type[Combiner]:
    """A class with these options, each a type and a default."""

    def combine(self, gram, losses, order):
        return Combination(np.full(len(gram), getattr(self, "size", 1.0)), Record())

    members = {
        "name": name,
        "claims": property(lambda self: Claims()),
        "_combine": combine,
        "__annotations__": {"name": ClassVar[str], **{key: hint for key, (hint, _) in options.items()}},
        **{key: default for key, (_, default) in options.items() if default is not ...},
    }
    return dataclass(type("Notebook", (kind,), members))


def test_a_registered_class_is_known_by_its_name():
    kind = a_combiner(
        "notebook", size=(float, 2.0), n=(int, 1), on=(bool, False), word=(str, "a"), which=(Literal["x", "y"], "x")
    )
    assert register(kind) is kind
    assert names()[-1] == "notebook"
    assert "notebook" in names(torch_free=True)
    combiner = make("notebook:size=3,n=4,on=true,word=b,which=y")
    assert combiner == kind(3.0, 4, True, "b", "y")
    assert make(combiner.spec) == combiner
    np.testing.assert_array_equal(combiner.combine(np.eye(2)).weights, [3, 3])
    for spec, says in [
        ("notebok", "did you mean 'notebook'"),
        ("notebook:on=maybe", "on takes true or false, not 'maybe'"),
        ("notebook:siz=1", "did you mean 'size'"),
    ]:
        with pytest.raises(UsageError, match=says):
            make(spec)


def test_a_notebook_cell_can_run_again_but_another_class_cannot_take_the_name():
    register(a_combiner("notebook"))
    again = register(a_combiner("notebook", size=(float, 5.0)))
    assert type(make("notebook")) is again
    other = a_combiner("notebook")
    other.__qualname__ = "Other"
    with pytest.raises(UsageError, match=r"has the name 'notebook', which .*Notebook has; choose another"):
        register(other)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (a_combiner("mean"), "the combiner Notebook has the name 'mean' of a method of toppo; choose another"),
        (Mean, "has the name 'mean' of a method of toppo"),
        (int, "the combiner int is not a subclass of toppo.combiners.Combiner"),
        ("mean", "is not a subclass"),
        (type("Half", (Combiner,), {"name": "half"}), "Half does not define _combine, claims"),
        (a_combiner("Two Words"), "lower-case letters"),
        (a_combiner("a:b"), "lower-case letters"),
        (a_combiner(None), "lower-case letters"),
        (a_combiner("n", size=(float, ...)), "an option 'size' without a default"),
        (a_combiner("n", sizes=(tuple[float, ...], ())), "an option 'sizes' of a type other than float"),
        (a_combiner("n", size=("Unknown", 1)), "annotations that cannot be read"),
    ],
)
def test_what_no_spec_could_make_is_not_registered(kind: object, says: str):
    with pytest.raises(UsageError, match=says):
        register(kind)
    assert names() == list(registry._BUILT_IN)


GOOD = """
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toppo.combiners import Claims, Combination, Combiner, Record


@dataclass
class Tilted(Combiner):
    name: ClassVar[str] = "tilted"

    tilt: float = 0.5

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, homogeneous=True)

    def _combine(self, gram, losses, order):
        return Combination(np.diagonal(gram) ** -self.tilt, Record())


class Misnamed(Tilted):
    name = "another"


class Taken(Tilted):
    name = "mean"
"""
WRONG_POINTS = {
    "toppo-wrong": {
        "mean": "toppo_tilted.methods:Taken",
        "misnamed": "toppo_tilted.methods:Misnamed",
        "no-combiner": "toppo_tilted.methods:sys",
        "no-module": "toppo_tilted.nowhere:Nothing",
        "two-lines": "toppo_wrong:Nothing",
        "twice": "toppo_tilted.methods:Tilted",
    },
    "toppo-other": {"twice": "toppo_tilted.methods:Tilted"},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip installed toppo-tilted. The other packages are written there by hand, to save time."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    root = tmp_path_factory.mktemp("packages")
    (root / "toppo_tilted").mkdir()
    (root / "toppo_tilted" / "methods.py").write_text(GOOD)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "toppo-tilted"\nversion = "1.2"\n'
        '[project.entry-points."toppo.combiners"]\ntilted = "toppo_tilted.methods:Tilted"\n'
        '[tool.setuptools]\npackages = ["toppo_tilted"]\n'
    )
    site = root / "site"
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(root)], check=True)
    for name, points in WRONG_POINTS.items():
        info = site / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{point} = {value}" for point, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[toppo.combiners]", *lines, ""]))
    (site / "toppo_wrong.py").write_text('raise RuntimeError("cannot\\nwork here")')
    return site


def run_with(site: Path, code: str) -> object:
    """What a new process prints as JSON, where these packages are installed."""
    path = os.pathsep.join([str(site), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_an_installed_package_adds_a_combiner(installed: Path):
    found = run_with(
        installed,
        """
        import json, sys
        import numpy as np
        from toppo.combiners import make, names, parse_spec
        make("fairgrad")
        listed = names()
        lazy = "toppo_tilted" not in sys.modules
        combiner = make("tilted:tilt=1")
        kind, options = parse_spec("tilted:tilt=0.5")
        try:
            make("tilted:tild=1")
        except ValueError as error:
            typo = str(error)
        print(json.dumps({
            "listed": listed, "lazy": lazy, "spec": combiner.spec, "options": options,
            "same": kind is type(combiner), "typo": typo,
            "weights": combiner.combine(np.diag([4.0, 0.0, 16.0])).weights.tolist(),
        }))
        """,
    )
    assert found["listed"][: len(registry._BUILT_IN)] == list(registry._BUILT_IN)
    assert "tilted" in found["listed"]
    assert len(found["listed"]) == len(set(found["listed"]))
    assert found["lazy"]
    assert (found["spec"], found["options"], found["same"]) == ("tilted:tilt=1", {"tilt": 0.5}, True)
    assert found["typo"] == "tilted has no option 'tild': did you mean 'tilt'?"
    assert found["weights"] == [0.25, 0.0, 0.0625]


WRONG = {
    "mean": "the package toppo-wrong 1.2 has a combiner 'mean', which is the name of a method of toppo: "
    "rename the combiner there, or uninstall the package",
    "misnamed": "the combiner 'misnamed' of the package toppo-wrong 1.2 (toppo_tilted.methods:Misnamed) calls itself "
    "'another', but its entry point is named 'misnamed': the names must be the same; update or uninstall the package",
    "no-combiner": "the combiner 'no-combiner' of the package toppo-wrong 1.2 (toppo_tilted.methods:sys) is not a "
    "subclass of toppo.combiners.Combiner; update or uninstall the package",
    "no-module": "the combiner 'no-module' of the package toppo-wrong 1.2 (toppo_tilted.nowhere:Nothing) cannot be "
    "imported (ModuleNotFoundError: No module named 'toppo_tilted.nowhere'); update or uninstall the package",
    "two-lines": "the combiner 'two-lines' of the package toppo-wrong 1.2 (toppo_wrong:Nothing) cannot be "
    "imported (RuntimeError: cannot work here); update or uninstall the package",
    "tiltet": "unknown combiner 'tiltet': did you mean 'tilted'?",
}


def test_a_package_that_cannot_be_used_is_named_in_one_line(installed: Path):
    found = run_with(
        installed,
        f"""
        import json
        from toppo.combiners import make, names
        from toppo.common.errors import UsageError
        said = {{}}
        for name in {[*WRONG, "twice"]!r}:
            try:
                make(name)
            except UsageError as error:
                said[name] = str(error)
        try:
            names(torch_free=True)
        except UsageError as error:
            said["names"] = str(error)
        said["others work"] = make("fairgrad").spec
        print(json.dumps(said))
        """,
    )
    twice = found.pop("twice")
    assert all(owner in twice for owner in ("toppo-wrong 1.2", "toppo-other 1.2", "'twice'", "uninstall all but one"))
    assert "toppo-wrong 1.2" in found.pop("names")
    assert found == {**WRONG, "others work": "fairgrad:alpha=1"}


def test_the_package_does_not_import_torch():
    code = (
        "import sys, toppo.combiners; sys.exit(any(name.split('.')[0] in ('torch', 'torchjd') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("spec", [None, 3, ["mean"]])
def test_a_combiner_is_named_by_a_text(spec):
    with pytest.raises(UsageError, match="a combiner is named by a text such as 'fairgrad:alpha=1', not by a"):
        make(spec)

from __future__ import annotations

import subprocess
import sys

import pytest

from toppo.combiners import FairGrad, PCGrad, make, names, parse_spec


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
    with pytest.raises(ValueError, match=says):
        make(spec)


def test_the_package_does_not_import_torch():
    code = (
        "import sys, toppo.combiners; sys.exit(any(name.split('.')[0] in ('torch', 'torchjd') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

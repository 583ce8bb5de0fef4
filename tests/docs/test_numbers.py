"""The numbers that the README states of its picture are those of the shipped archive."""

from __future__ import annotations

import numpy as np

import toppo_diag
from tests.docs.pages import ROOT
from toppo.dump import open_dump


def test_the_readme_states_the_numbers_of_its_picture():
    page = toppo_diag.report(ROOT / "figures" / "data" / "mean-ln.h5")
    trouble = {row["check"]: row for row in page.headline if row["verdict"] == "trouble"}
    assert set(trouble) == {"top_1", "spread"} and {row["side"] for row in trouble.values()} == {"critic"}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert trouble["top_1"]["tasks"] == ["pick-place-v3"]
    assert f"pick-place alone makes {100 * trouble['top_1']['number']:.0f}% of the critic's step" in readme
    assert f"typically {trouble['spread']['number']:.0f} times the shortest" in readme
    opposed = {row["combiner"]: row["opposed"] for row in page.options if row["side"] == "critic" and row["popart"]}
    assert (opposed["mean"], opposed["fairgrad"]) == (3, 0)


def test_the_tutorial_states_the_ratios_of_its_picture_and_their_medians():
    dump = open_dump(ROOT / "figures" / "data" / "toppo.h5")
    length = np.sqrt(np.diagonal(dump.values("critic_gram")[0], axis1=1, axis2=2))
    without_popart = length * dump.values("popart_sigma")[0] ** 2
    ratios = [values.max(axis=1) / values.min(axis=1) for values in (without_popart, length)]
    first, typical = ([f"{of(ratio):,.0f}" for ratio in ratios] for of in (lambda ratio: ratio[0], np.median))
    page = ROOT / "docs" / "tutorials" / "read-a-heatmap.md"
    tutorial = " ".join(page.read_text(encoding="utf-8").split())
    assert f"has spreads of {first[0]} and {first[1]}" in tutorial
    assert f"medians are {typical[0]} and {typical[1]}" in tutorial

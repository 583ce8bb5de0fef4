"""The numbers that the README states of its picture are those of the shipped archive."""

from __future__ import annotations

import numpy as np

from tests.docs.pages import ROOT
from toppo.dump import open_dump


def test_the_readme_states_the_ratios_of_its_picture_and_their_medians():
    dump = open_dump(ROOT / "figures" / "data" / "toppo.h5")
    length = np.sqrt(np.diagonal(dump.values("critic_gram")[0], axis1=1, axis2=2))
    without_popart = length * dump.values("popart_sigma")[0] ** 2
    ratios = [values.max(axis=1) / values.min(axis=1) for values in (without_popart, length)]
    first, typical = ([f"{of(ratio):,.0f}" for ratio in ratios] for of in (lambda ratio: ratio[0], np.median))

    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"a ratio of {first[0]} without PopArt and {first[1]} with it" in readme
    assert f"medians are {typical[0]} and {typical[1]}" in readme
    quietest = {dump.tasks[i] for i in without_popart.argmin(axis=1)}
    assert quietest == {"pick-place-v3"}

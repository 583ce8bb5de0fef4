"""Intervention conditions of Figures 3 and D.1, as read off dumps: each dump gives itself, and one trained with
PopArt its raw counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toppo.dump import Dump
from toppo_diag.analysis.heatmap import without_popart


@dataclass(frozen=True)
class Condition:
    """One column of a figure: a dump, read as it is or with PopArt's sigma^2 taken back."""

    label: str
    dump: Dump
    invert_popart: bool

    def gram(self, side: str, snapshot: int, minibatch: int) -> Float[np.ndarray, "K K"]:
        """The Gram of one dumped minibatch under this condition."""
        gram = self.dump.values(f"{side}_gram")[snapshot, minibatch]
        if not self.invert_popart:
            return np.asarray(gram)
        return without_popart(gram, self.dump.values("popart_sigma")[snapshot])


def has_popart(dump: Dump) -> bool:
    """Whether the run normalised its value targets."""
    return dump.attrs.get("config", {}).get("popart", "off") != "off" and "popart_sigma" in dump.names


def has_critic_layernorm(dump: Dump) -> bool:
    """Whether the run's critic had LayerNorm."""
    return bool(dump.attrs.get("config", {}).get("layernorm", "none") != "none")


def critic_conditions(dumps: Sequence[Dump]) -> list[Condition]:
    """The columns of Figure D.1 these dumps give: vanilla, +PopArt, +LN, +PopArt+LN, in that order; numbered where a
    label repeats.
    """
    found = []
    for dump in dumps:
        ln = "+LN" if has_critic_layernorm(dump) else ""
        if has_popart(dump):
            found.append(Condition(ln or "vanilla", dump, invert_popart=True))
            found.append(Condition(f"+PopArt{ln}", dump, invert_popart=False))
        else:
            found.append(Condition(ln or "vanilla", dump, invert_popart=False))
    order = ("vanilla", "+PopArt", "+LN", "+PopArt+LN")
    return _distinct(sorted(found, key=lambda c: order.index(c.label)))


def plain_conditions(dumps: Sequence[Dump]) -> list[Condition]:
    """One column a dump, as it is (Figure D.2)."""
    return _distinct([Condition("", dump, invert_popart=False) for dump in dumps])


def _distinct(conditions: list[Condition]) -> list[Condition]:
    labels = [c.label for c in conditions]
    return [
        Condition(f"{c.label} ({run_name(c.dump)})".strip(), c.dump, c.invert_popart)
        if labels.count(c.label) > 1 or not c.label
        else c
        for c in conditions
    ]


def run_name(dump: Dump) -> str:
    """The run's name: the directory that holds dump.zarr, or the archive's own."""
    parts = dump.path.rstrip("/").split("/")
    return (
        parts[-2]
        if parts[-1] == "dump.zarr" and len(parts) > 1
        else parts[-1].removesuffix(".h5").removesuffix(".zarr")
    )

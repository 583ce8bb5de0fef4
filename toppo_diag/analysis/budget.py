"""How much of the report's page the heatmaps may take, and which of them fit into that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_BYTES = 14_000_000
"""All heatmaps of a page together. With Plotly and the other views, a page stays near 20 MB."""
MOST_STEPS = 200
"""Steps of a heatmap's slider. A longer recording is thinned evenly."""
FEWEST_STEPS = 25
"""Steps that the slider keeps, if need be at the cost of layers."""
_TEXT = 4 / 3
"""Base64 writes three bytes as four characters."""


@dataclass(frozen=True)
class Fit:
    """What one heatmap would take.

    Attributes:
        steps: that were recorded.
        step_bytes: of one step.
        rank: the heatmaps with the smallest are left out first. One with an infinite rank always stays.
    """

    steps: int
    step_bytes: int
    rank: float

    def bytes(self, most_steps: int) -> float:
        """What it takes of the page, with so many steps at most."""
        return _TEXT * self.step_bytes * min(self.steps, most_steps)


@dataclass(frozen=True)
class Fitted:
    """What fits.

    Attributes:
        most_steps: steps of the slider.
        kept: indices of the heatmaps that stay, increasing.
    """

    most_steps: int
    kept: tuple[int, ...]


def fit(wanted: Sequence[Fit], most: float = MOST_BYTES) -> Fitted:
    """The heatmaps and the steps that fit. First the slider is thinned, then layers go, then it is thinned further.

    At least one step stays, so the heatmaps of very many tasks may take more than `most`.

    Args:
        wanted: every heatmap.
        most: bytes that they may take together.
    """

    def total(of: Sequence[int], steps: int) -> float:
        return sum(wanted[n].bytes(steps) for n in of)

    def steps_for(of: Sequence[int], fewest: int) -> int:
        return next((steps for steps in range(MOST_STEPS, fewest, -1) if total(of, steps) <= most), fewest)

    kept = list(range(len(wanted)))
    steps = steps_for(kept, FEWEST_STEPS)
    first_to_go = sorted((n for n in kept if wanted[n].rank < float("inf")), key=lambda n: wanted[n].rank)
    for n in first_to_go:
        if total(kept, steps) <= most:
            break
        kept.remove(n)
    if total(kept, steps) > most:
        steps = steps_for(kept, 1)
    return Fitted(steps, tuple(kept))

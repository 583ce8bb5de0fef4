"""Times as the trainer says them."""

from __future__ import annotations

import pytest

from toppo.training.run.progress import duration, rough


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.37, "0.37 s"), (4.2, "4.2 s"), (50, "50 s"), (200, "3 min"), (3600, "60 min"), (2.04 * 3600, "2.0 h")],
)
def test_a_rough_time_is_never_nothing(seconds: float, said: str):
    assert rough(seconds) == said


def test_long_times():
    assert [rough(3600 * hours) for hours in (12.4, 80, 1000)] == ["12 h", "3 days", "42 days"]
    assert duration(3 * 3600 + 299) == "3 h 05 min"

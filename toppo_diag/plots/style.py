"""One look for every figure: sizes, fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

COLUMN_WIDTH = 3.3
PAGE_WIDTH = 6.9
"""Inches, of a two-column paper."""

COSINE_MAP = "RdBu_r"
"""Diverging, centred at 0: red aligned, blue conflicting."""
MAGNITUDE_MAP = "viridis"
DEAD = "0.75"
"""Grey of a task without gradient."""


@contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib settings of every figure; vector output with embedded fonts, and without a date, so that a rerun
    gives the same bytes.
    """
    settings: Any = {
        "font.size": 7,
        "axes.titlesize": 7.5,
        "axes.labelsize": 7,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "legend.fontsize": 6,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "xtick.major.size": 2,
        "ytick.major.size": 2,
        "pdf.fonttype": 42,
        "savefig.dpi": 300,
        "figure.dpi": 150,
    }
    with mpl.rc_context(settings):
        yield


def short(task: str) -> str:
    """A task's name without Meta-World's version suffix."""
    return task.removesuffix("-v3").removesuffix("-v2")

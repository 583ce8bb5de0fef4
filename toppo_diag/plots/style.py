"""One look for every figure: sizes, fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from toppo_diag.plots.names import METAWORLD, short

COLUMN_WIDTH = 3.3
PAGE_WIDTH = 6.9
"""Inches, of a two-column paper."""

COSINE_MAP = "RdBu_r"
"""Diverging, centred at 0: red aligned, blue conflicting."""
MAGNITUDE_MAP = "viridis"
DEAD = "0.75"
"""Grey of a task without gradient."""

GRADIENT_UNIT = "loss / parameter"
"""Unit of a gradient's length, as it stands on axes."""

_COLOURS = (
    "#332288",
    "#88CCEE",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#44AA99",
    "#661100",
)
"""Paul Tol's muted scheme, which the common kinds of colour blindness leave distinct."""
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))

_COMBINERS = {
    "fairgrad:alpha=1": ("#D62728", "-"),
    "fairgrad:alpha=2": ("#E69F00", "-"),
    "fairgrad-paper": ("#D62728", ":"),
    "mean": ("black", "--"),
    "sum": ("0.5", "--"),
    "pcgrad": ("#0072B2", "-"),
    "gradvac": ("#0072B2", ":"),
    "cagrad": ("#009E73", "-"),
    "mgda": ("#CC79A7", "-"),
    "imtl-g": ("#56B4E9", "-"),
    "nash-mtl": ("#56B4E9", "--"),
    "aligned-mtl": ("#117733", "--"),
    "upgrad": ("#882255", "-"),
    "dualproj": ("#882255", ":"),
    "config": ("#999933", "-"),
    "dwa": ("0.35", "-."),
    "uw": ("0.6", "-."),
    "famo": ("0.45", ":"),
    "taskforce": ("#AA4499", "-"),
}


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
        "legend.frameon": False,
        "legend.handlelength": 1.8,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 0.8,
        "lines.markersize": 2.5,
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "xtick.major.size": 2,
        "ytick.major.size": 2,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "pdf.fonttype": 42,
        "svg.hashsalt": "toppo",
        "savefig.dpi": 300,
        "figure.dpi": 150,
    }
    with mpl.rc_context(settings):
        yield


def task_styles(tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each task, as keywords of `Axes.plot`.

    A Meta-World task looks the same in every figure; others take the looks that are left, in their order.
    """
    place = {task: METAWORLD.index(short(task)) for task in tasks if short(task) in METAWORLD}
    free = (n for n in range(len(tasks) + len(METAWORLD)) if n not in place.values())
    for task in tasks:
        if task not in place:
            place[task] = next(free)
    n = len(_COLOURS)
    return {
        task: {"color": _COLOURS[place[task] % n], "linestyle": _DASHES[place[task] // n % len(_DASHES)]}
        for task in tasks
    }


def combiner_style(spec: str) -> dict[str, Any]:
    """Colour and dashes of a combiner, the same in every figure; grey for one unknown."""
    name = spec.split(":")[0]
    if name == "fairgrad":
        name = f"fairgrad:alpha={'1' if 'alpha=' not in spec else spec.partition('alpha=')[2].split(',')[0]}"
    colour, dashes = _COMBINERS.get(name, ("0.7", "-"))
    return {"color": colour, "linestyle": dashes}


def combiner_label(spec: str) -> str:
    """A combiner as a legend names it: its name, and the fairness exponent of FairGrad."""
    name, _, options = spec.partition(":")
    if name == "fairgrad":
        return f"fairgrad, \u03b1 = {options.partition('alpha=')[2].split(',')[0] or '1'}"
    return name


def marker(n: int) -> dict[str, Any]:
    """Dots where a line has too few points to show itself."""
    return {"marker": "o"} if n <= 20 else {}


def steps_axis(ax: Axes) -> None:
    """Environment steps along x, as 500k or 2M."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("environment steps")


def draw_tasks(
    ax: Axes, steps: Float[np.ndarray, "T"], values: Float[np.ndarray, "T K"], tasks: Sequence[str], **how: Any
) -> None:
    """One thin line a task on a log axis; where a task is dead (0), a grey cross at the foot of the axis."""
    looks = task_styles(tasks)
    for k, task in enumerate(tasks):
        alive = values[:, k] > 0
        line = np.where(alive, values[:, k], np.nan)
        ax.plot(steps, line, **{"gid": f"task {task}", **looks[task], **marker(len(steps)), **how})
        if not alive.all():
            dead = steps[~alive]
            ax.plot(
                dead, np.full(len(dead), 0.015), "x", color=DEAD, transform=ax.get_xaxis_transform(), gid=f"dead {task}"
            )
    if (values > 0).any():
        ax.set_yscale("log")


def task_legend(
    figure: Figure, tasks: Sequence[str], dead: Sequence[bool] | None = None, extra: Mapping[str, dict[str, Any]] = {}
) -> None:
    """Legend of the tasks below the figure; a task dead all along is grey and says so."""
    looks = task_styles(tasks)
    handles = [Line2D([], [], label=label, **look) for label, look in extra.items()]
    for k, task in enumerate(tasks):
        gone = dead is not None and dead[k]
        look = {**looks[task], "color": DEAD} if gone else looks[task]
        handles.append(Line2D([], [], label=short(task) + (" (dead)" if gone else ""), **look))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=legend_columns(figure.get_size_inches()[0], [*extra, *tasks])
    )


def legend_columns(width: float, labels: Sequence[str]) -> int:
    """Columns of a legend `width` inches wide."""
    widest = max(len(short(label)) for label in labels) + 4
    return max(1, int(width / (0.042 * widest + 0.33)))


def legend_height(width: float, labels: Sequence[str]) -> float:
    """Inches that the legend of these labels takes below a figure."""
    return 0.13 * math.ceil(len(labels) / legend_columns(width, labels)) + 0.1


def times(ratio: float) -> str:
    """A spread as a badge: 9,864x, 4.1x."""
    return f"{ratio:,.0f}\u00d7" if ratio >= 100 else f"{ratio:.3g}\u00d7"

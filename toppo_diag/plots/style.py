"""The look that all figures share: sizes, fonts, and colours that colour-blind readers can tell apart.

Matplotlib reads some settings when it makes an artist, some when it draws, and some when it saves. `paper_style` sets
the first kind. `dress` fixes the second kind on the axes. `save_figure` sets the third kind. So a figure looks the same
wherever it is made, shown and saved.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from toppo.common.errors import unknown
from toppo.common.files import write_whole
from toppo_diag.analysis.typical import Typical
from toppo_diag.plots.colours import TASK_COLOURS
from toppo_diag.plots.names import FORMATS, METAWORLD, short

Target = Figure | SubFigure
"""The object that a whole picture is drawn on."""

COLUMN_WIDTH = 3.3
"""Width of one column of a two-column paper, in inches."""
PAGE_WIDTH = 6.9
"""Width of a page of a two-column paper, in inches."""

COSINE_MAP = "RdBu_r"
"""Colour map of cosines, centred at 0: red is aligned, blue is in conflict."""
MAGNITUDE_MAP = "viridis"
"""Colour map of gradient lengths."""
DEAD = "0.75"
"""Grey of a dead task, that is a task without gradient."""

LOST = "#F6DEDE"
"""Ground of the steps at which no gradient is finite."""

GRADIENT_UNIT = "loss / parameter"
"""Unit of a gradient's length, as axes name it."""

STEPS = "steps"
"""Label of the steps where a run does not say what they are."""

ENVIRONMENT_STEPS = "environment steps"
"""Label of the steps of our trainer, where only its runs are drawn."""

_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))

_BEHIND: dict[str, Any] = {"color": "0.82", "linestyle": "-", "marker": "", "zorder": 1.5}
"""Look of the tasks that a picture with many tasks does not name."""
MANY = 15
"""With more tasks than this, a picture names the extreme ones alone."""
_EXTREME = 4
"""How many of the lowest and of the highest lines it names."""

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


_SETTINGS: dict[str, Any] = {
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
    "pdf.fonttype": 42,  # embedded fonts
    "svg.hashsalt": "toppo",  # the same names inside an SVG file at each run
    "savefig.dpi": 300,
    "figure.dpi": 150,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib's settings for all figures, within a `with` block or, as `@paper_style()`, within a function.

    They start from the user's matplotlibrc file, as on the command line. A theme that a notebook has set since then
    has no effect. The settings from before come back at the end.
    """
    with mpl.rc_context():
        mpl.rc_file_defaults()
        settings: Any = mpl.rcParams
        settings.update(_SETTINGS)
        # Text keeps the family's name and looks for the font when it is drawn. Only a font's own name cannot change.
        settings["font.family"] = [*(_font(family) for family in settings["font.family"]), *_fallbacks()]
        yield


_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Source Han Sans", "Droid Sans Fallback"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC", "Arial Unicode MS", "Yu Gothic"),
    *("Microsoft YaHei", "Malgun Gothic", "Apple SD Gothic Neo", "Nirmala UI", "Noto Sans Devanagari"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Thai"),
)
"""Fonts for scripts that matplotlib's own font lacks. Those that are installed are used where a name needs them."""


def _fallbacks() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _SCRIPTS if name in installed]


@paper_style()
def undrawn(texts: Iterable[str]) -> str:
    """The characters that no font here can draw, each once. A figure shows an empty box in their place."""
    fonts = [
        font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))
        for family in mpl.rcParams["font.family"]
    ]
    characters = dict.fromkeys(c for text in texts for c in text if c.isprintable() and not c.isspace())
    return "".join(c for c in characters if not any(font.get_char_index(ord(c)) for font in fonts))


def _font(family: str) -> str:
    """Name of the installed font that a family means, such as DejaVu Sans for sans-serif."""
    path = font_manager.findfont(font_manager.FontProperties(family=[family]))
    return font_manager.get_font(path).family_name


def dress(ax: Axes) -> Axes:
    """The given axes, in the paper's fonts, ticks and frame.

    Call it within `paper_style`, before anything is drawn. Axes that a user made have the user's settings. Our own axes
    need it too, because matplotlib makes most ticks when it draws, with the settings of that moment. Colours of the
    background and grid lines stay.
    """
    fix_ticks(ax)
    for edge in ("top", "right"):
        ax.spines[edge].set_visible(False)
    for spine in ax.spines.values():
        spine.set_linewidth(mpl.rcParams["axes.linewidth"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(fontsize=mpl.rcParams["axes.labelsize"], fontfamily=mpl.rcParams["font.family"])
    return ax


def fix_ticks(ax: Axes) -> Axes:
    """The given axes, whose ticks get the present settings, even those that matplotlib makes later. See `dress`."""
    settings: Any = mpl.rcParams
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        colour = settings[f"{name}tick.color"]
        label = settings[f"{name}tick.labelcolor"]
        size = settings[f"{name}tick.labelsize"]
        for which in ("major", "minor"):
            ax.tick_params(
                axis=name,  # type: ignore[arg-type]
                which=which,
                length=settings[f"{name}tick.{which}.size"],
                width=settings[f"{name}tick.{which}.width"],
                pad=settings[f"{name}tick.{which}.pad"],
                direction=settings[f"{name}tick.direction"],
                color=colour,
                labelcolor=colour if label == "inherit" else label,
                labelsize=size,
                labelfontfamily=settings["font.family"],
            )
        axis.offsetText.set(fontsize=size, fontfamily=settings["font.family"])
    return ax


def sheet(target: Target | None, width: float, height: float) -> Target:
    """The target, ready to be drawn on; without a target, a new Figure of this size in inches.

    Legends stand below the panels, which only constrained layout can do. A given figure without a layout engine gets
    this one.
    """
    if target is None:
        return Figure(figsize=(width, height), layout="constrained")
    if (figure := whole(target)).get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return target


def whole(target: Target) -> Figure:
    """The Figure that a SubFigure belongs to; a Figure itself."""
    return target.figure


def size_inches(target: Target) -> tuple[float, float]:
    """Width and height in inches."""
    if isinstance(target, Figure):
        width, height = target.get_size_inches()
        return float(width), float(height)
    return target.bbox.width / whole(target).dpi, target.bbox.height / whole(target).dpi


@paper_style()
def save_figure(figure: Figure, stem: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """The files of a figure, one for each format: stem.pdf, stem.png and so on.

    The same data give the same bytes: a file holds no date. Each file is written whole or not at all.

    Args:
        figure: any figure; those of `toppo_diag.plots` look the same as on the command line.
        stem: path without the ending. Directories that are missing are made.
        formats: out of `FORMATS`.

    Raises:
        UsageError: an unknown format. Nothing has been written.
        OSError: the files cannot be written.
    """
    stem = Path(stem)
    for kind in formats:
        if kind not in FORMATS:
            raise unknown("format", kind, FORMATS)
    stem.parent.mkdir(parents=True, exist_ok=True)
    return [write_whole(stem.with_name(f"{stem.name}.{kind}"), figure_bytes(figure, kind)) for kind in formats]


@paper_style()
def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Content of a figure's file in one of `FORMATS`, without a date."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    with warnings.catch_warnings():
        # a product's note says so once (`undrawn`); matplotlib would for every letter and format
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def task_styles(tasks: Sequence[str], named: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Colour and dashes per task, as keywords of `Axes.plot`. Of many tasks, those that are not `named` are grey.

    A Meta-World task looks the same in every figure. Other tasks get the remaining styles, in their order.
    """
    place = {task: METAWORLD.index(short(task)) for task in tasks if short(task) in METAWORLD}
    free = (n for n in range(len(tasks) + len(METAWORLD)) if n not in place.values())
    for task in tasks:
        if task not in place:
            place[task] = next(free)
    n = len(TASK_COLOURS)
    looks = {
        task: {"color": TASK_COLOURS[place[task] % n], "linestyle": _DASHES[place[task] // n % len(_DASHES)]}
        for task in tasks
    }
    return looks if named is None else {task: look if task in named else _BEHIND for task, look in looks.items()}


def combiner_style(spec: str) -> dict[str, Any]:
    """Colour and dashes of a combiner, the same in every figure; grey for an unknown one."""
    name = spec.split(":")[0]
    if name == "fairgrad":
        name = f"fairgrad:alpha={'1' if 'alpha=' not in spec else spec.partition('alpha=')[2].split(',')[0]}"
    colour, dashes = _COMBINERS.get(name, ("0.7", "-"))
    return {"color": colour, "linestyle": dashes}


def combiner_label(spec: str) -> str:
    """Name of a combiner in a legend, with the fairness exponent for FairGrad."""
    name, _, options = spec.partition(":")
    if name == "fairgrad":
        return f"fairgrad, \u03b1 = {options.partition('alpha=')[2].split(',')[0] or '1'}"
    return name


def marker(n: int) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a line of n points: dots on a short line, which may be a single point."""
    return {"marker": "o"} if n <= 20 else {}


def name_size(n_tasks: int) -> float:
    """Font size of task names along a grid, in points."""
    return 6 if n_tasks <= 15 else 4.5


def name_length(tasks: Sequence[str]) -> float:
    """Inches that the longest task name takes along a grid."""
    return max(len(short(task)) for task in tasks) * (0.05 if len(tasks) <= 15 else 0.038)


def panel_letters() -> Iterator[str]:
    """The letters of the panels of a figure: a to z, then aa, ab and so on."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(ascii_lowercase, repeat=length))


def steps_axis(ax: Axes, label: str = STEPS) -> None:
    """Write steps along x, as 20, 500k or 2M. Steps are whole numbers.

    Args:
        ax: to draw on.
        label: what the steps are, in the words of the run.
    """
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel(label)


def outstanding(values: Float[np.ndarray, "T K"], tasks: Sequence[str]) -> list[str]:
    """The tasks that a picture names: all, or of many tasks those with the lowest and the highest lines.

    Args:
        values: over T steps; the medians over the steps are compared.
        tasks: K names.
    """
    if len(tasks) <= MANY:
        return list(tasks)
    middle = [float(np.median(v[np.isfinite(v)])) if np.isfinite(v).any() else np.nan for v in values.T]
    order = np.argsort(middle, kind="stable")
    order = order[np.isfinite(middle)[order]]
    named = {int(k) for k in (*order[:_EXTREME], *order[-_EXTREME:])}
    return [task for k, task in enumerate(tasks) if k in named]


def other_tasks(tasks: Sequence[str], named: Sequence[str]) -> list[str]:
    """The label of the grey lines of the tasks that are not named; [] where all are."""
    return [f"{len(tasks) - len(named)} other tasks"] if len(named) < len(tasks) else []


def mark_lost(ax: Axes, steps: np.ndarray, values: Float[np.ndarray, "T K"]) -> None:
    """Shade the steps at which no task has a number, so that a run that is all NaN from some step on is seen to be so.

    Args:
        ax: to draw on.
        steps: of the T snapshots, increasing.
        values: numbers for each task, or one number for each step.
    """
    lost = np.isnan(values.reshape(len(steps), -1)).all(axis=1)
    if not lost.any() or lost.all():
        return
    ends = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(int)))
    for first, after in zip(ends[::2], ends[1::2], strict=True):
        # from the last good step on; a step that is lost alone, or at the start, is widened to its neighbours
        span = steps[max(first - 1, 0)], steps[min(after, len(steps) - 1)]
        ax.axvspan(*span, color=LOST, linewidth=0, zorder=0.5, gid="lost")
    widest = max(zip(ends[::2], ends[1::2], strict=True), key=lambda ends: int(ends[1] - ends[0]))
    middle = (steps[max(widest[0] - 1, 0)] + steps[min(widest[1], len(steps) - 1)]) / 2
    text: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 6, "color": "0.35"}
    ax.text(middle, 0.5, "no finite gradient", transform=ax.get_xaxis_transform(), gid="lost note", **text)


def dots(values: Float[np.ndarray, "T"]) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a line with gaps (NaN): dots on a short line, and where points stand alone."""
    known = np.isfinite(values)
    beside = np.concatenate([[False], known[:-1]]) | np.concatenate([known[1:], [False]])
    return marker(len(values)) or ({"marker": "o", "markersize": 1.2} if (known & ~beside).any() else {})


def draw_tasks(
    ax: Axes,
    steps: Float[np.ndarray, "T"],
    values: Float[np.ndarray, "T K"],
    tasks: Sequence[str],
    named: Sequence[str] | None = None,
    **how: Any,
) -> None:
    """Draw one thin line per task on a log axis. Where a task is dead (0), a grey cross marks the foot of the axis.

    Where it is not known (NaN), its line has a gap.
    """
    looks = task_styles(tasks, outstanding(values, tasks) if named is None else named)
    for k, task in enumerate(tasks):
        is_dead = values[:, k] == 0
        line = np.where(is_dead, np.nan, values[:, k])
        ax.plot(steps, line, **{"gid": f"task {task}", "label": short(task), **dots(line), **looks[task], **how})
        if is_dead.any():
            dead = steps[is_dead]
            ax.plot(
                dead, np.full(len(dead), 0.015), "x", color=DEAD, transform=ax.get_xaxis_transform(), gid=f"dead {task}"
            )
    mark_lost(ax, steps, values)
    if (values > 0).any():
        log_axis(ax, values[values > 0])


def log_axis(ax: Axes, values: Float[np.ndarray, "n"]) -> None:
    """Make the y axis logarithmic, with several ticks that read, also where the values span less than a decade.

    Axes that share their y axis share its ticks: what is drawn on any of them counts.

    Args:
        ax: to draw on.
        values: positive numbers on the axis.
    """
    ax.set_yscale("log")
    low, high = float(values.min()), float(values.max())
    for other in ax.get_shared_y_axes().get_siblings(ax):
        drawn = other.dataLim
        if np.isfinite([drawn.minposy, drawn.ymax]).all() and drawn.ymax > 0:
            low, high = min(low, drawn.minposy), max(high, drawn.ymax)
    decades = math.log10(high / low)
    if decades >= 1.5:
        return
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if decades > 0.7 else MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def task_legend(
    target: Target,
    tasks: Sequence[str],
    dead: Sequence[bool] | None = None,
    extra: Mapping[str, dict[str, Any]] = {},
    named: Sequence[str] | None = None,
) -> None:
    """Put a legend of the tasks below the panels.

    Args:
        target: Figure or SubFigure.
        tasks: K names.
        dead: whether each task is dead at all steps, (K,). The legend shows such tasks in grey, as "(dead)".
        extra: looks of further lines by label, which come first.
        named: tasks to name; the others have one grey line. None names all.
    """
    named = tasks if named is None else named
    others = other_tasks(tasks, named)
    looks = task_styles(tasks)
    handles = [Line2D([], [], label=label, **look) for label, look in extra.items()]
    for k, task in enumerate(tasks):
        if task not in named:
            continue
        gone = dead is not None and dead[k]
        look = {**looks[task], "color": DEAD} if gone else looks[task]
        handles.append(Line2D([], [], label=short(task) + (" (dead)" if gone else ""), **look))
    handles += [Line2D([], [], label=label, **_BEHIND) for label in others]
    columns = legend_columns(size_inches(target)[0], [*extra, *named, *others])
    target.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_columns(width: float, labels: Sequence[str]) -> int:
    """Number of columns of a legend that is `width` inches wide."""
    widest = max(len(short(label)) for label in labels) + 4
    return max(1, int(width / (0.042 * widest + 0.33)))


def legend_height(width: float, labels: Sequence[str]) -> float:
    """Inches that the legend of these labels takes below a figure of `width` inches."""
    return 0.13 * math.ceil(len(labels) / legend_columns(width, labels)) + 0.1


def spread_range(spread: Typical) -> str:
    """The range of a spread in brackets; "" where there is one minibatch."""
    return "" if spread.n < 2 else f"({times(spread.low)} to {times(spread.high)})"


def times(ratio: float) -> str:
    """A ratio as text for a badge: 9,864x, 4.1x, 3.82Mx."""
    if ratio >= 1e6:
        return f"{ratio / 1e6:.3g}M\u00d7" if ratio < 1e9 else f"{ratio:.1e}\u00d7"
    return f"{ratio:,.0f}\u00d7" if ratio >= 100 else f"{ratio:.3g}\u00d7"

"""The form of Tables 2, 3, B.2 and D.1 to D.11: the columns of each table, and how their cells are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toppo_diag.analysis.measures import WORST
from toppo_diag.analysis.runs import Aligned, combiner_name

Setting = tuple[str, str]
"""Benchmark and reward."""

NOTHING = "\N{EN DASH}"
"""The sign that the paper prints where there is no number."""


@dataclass(frozen=True)
class Cell:
    """A number as a table shows it."""

    value: float | None
    std: float | None


@dataclass(frozen=True)
class Line:
    """The facts about one line of a table, from which its columns make their cells.

    Attributes:
        name: the first cell of the line.
        ours: whether the line is ours rather than the paper's.
        method: the paper's name of the method.
        actor: the name of the actor's combiner, in a table that has it.
        critic: the name of the critic's combiner, in a table that has it.
        note: what the paper says beside the line.
        benchmark: the line's benchmark, in a table with a line for each.
        cells: the numbers, by metric, k, benchmark and reward.
        matched: for a baseline, the million steps from which our headline run stays at or above it.
        matched_first: for a baseline, the million steps at which our headline run is first at or above it.
    """

    name: str
    ours: bool
    method: str
    actor: str
    critic: str
    note: str
    benchmark: str
    cells: Mapping[tuple[str, int | None, str, str], Cell]
    matched: float | None = None
    matched_first: float | None = None

    def find(self, metric: str, k: int | None, benchmark: str, reward: str) -> Cell | None:
        """One number of the line; None where there is none."""
        return self.cells.get((metric, k, benchmark, reward))


@dataclass(frozen=True)
class Column:
    """One column: its headings, and the text of its cell in a line."""

    header: str
    text: Callable[[Line], str]
    span: str = ""


@dataclass(frozen=True)
class TableForm:
    """One of the paper's tables.

    Attributes:
        number: "2", "D.10".
        title: what the table shows.
        settings: the benchmarks and rewards that the table is about.
        columns: the columns after the first, which names the line; () for a per-task table.
        by_benchmark: whether a method has a line for each benchmark.
        by_source: whether a method has a line for each work that it is quoted from.
        keeps: whether a group of our runs belongs in the table.
        remarks: what a reader must know about the paper's own numbers.
    """

    number: str
    title: str
    settings: tuple[Setting, ...]
    columns: tuple[Column, ...]
    by_benchmark: bool = False
    by_source: bool = False
    keeps: Callable[[Aligned], bool] = field(default=lambda group: True)
    remarks: tuple[str, ...] = ()


def millions(steps: float) -> str:
    """Environment steps as the paper writes them: 1.5M."""
    return f"{steps / 1e6:.3g}M"


def percent(cell: Cell | None) -> str:
    """A success rate: 85.2 ± 6.5."""
    if cell is None or cell.value is None:
        return NOTHING
    return f"{cell.value:.1f}" + ("" if cell.std is None else f" ± {cell.std:.1f}")


def _success(header: str, metric: str, setting: Setting, span: str = "", k: int | None = None) -> Column:
    benchmark, reward = setting
    return Column(header, lambda line: percent(line.find(metric, k, benchmark, reward)), span)


def _parameters(setting: Setting, span: str = "") -> Column:
    def text(line: Line) -> str:
        cell = line.find("parameters", None, *setting)
        return NOTHING if cell is None or cell.value is None else f"{cell.value:.0f}K"

    return Column("Params", text, span)


def _worst_k(setting: Setting, span: str) -> tuple[Column, ...]:
    return tuple(_success(f"k={k}" + (" (All)" if k == 50 else ""), "worst_k", setting, span, k) for k in WORST)


def _step_to_match(line: Line) -> str:
    step, share = (line.find(name, None, "MT50", "v1") for name in ("step_to_match", "step_to_match_share"))
    return NOTHING if step is None or share is None else f"~{step.value:g}M ({share.value:g}%)"


def _millions_or_nothing(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}M"


def _all_parameters(benchmark: str) -> Column:
    """The parameters on a benchmark. They do not depend on the reward."""

    def text(line: Line) -> str:
        cells = [line.find("parameters", None, benchmark, reward) for reward in ("", "v2", "v1")]
        return next((f"{c.value:,.0f}K" for c in cells if c is not None and c.value is not None), NOTHING)

    return Column(f"Parameters ({benchmark})", text)


def _gap(line: Line) -> str:
    cell = line.find("iqm_gap", None, "MT50", "v1-v2")
    return NOTHING if cell is None or cell.value is None else f"{cell.value:+.2f}"


def _has(part: str) -> Callable[[Line], str]:
    return lambda line: "✓" if part in line.method else NOTHING


def _steps(*names: str, form: str = "{:.1f}") -> Callable[[Line], str]:
    def text(line: Line) -> str:
        cells = [line.find(name, None, line.benchmark, "v2") for name in names]
        values = [cell.value for cell in cells if cell is not None]
        return form.format(*values) if len(values) == len(names) else NOTHING

    return text


def _four(setting: Setting) -> tuple[Column, ...]:
    return tuple(_success(metric, metric, setting, setting[0]) for metric in ("best", "peak", "final", "late"))


def _critic_only_ln(runs: Aligned) -> bool:
    return bool(runs.config["layernorm"] == "critic")


def combiner_of(runs: Aligned, side: str) -> str:
    """The name of a side's combiner."""
    return combiner_name(str(runs.config[f"{side}_combiner"]))


_MT10, _MT50, _V1 = ("MT10", "v2"), ("MT50", "v2"), ("MT50", "v1")
_TAIL = "MT50 worst-k %"

ODD_STEPS = (
    "the paper: 51 evaluations of 100M steps stand 2M apart, but Table D.11 has best steps at 83M and 99M "
    "(Vanilla MT-PPO on MT50), and Figure D.6 has TOPPO's peak at 96.5M"
)
"""Where the paper contradicts itself."""

TABLE_FORMS = (
    TableForm(
        "2",
        "Meta-World V2 headline success rate and worst-k tail tasks, final checkpoint",
        (_MT10, _MT50),
        (
            _parameters(_MT10, "MT10"),
            _success("Success rate %", "final", _MT10, "MT10"),
            _parameters(_MT50, "MT50"),
            *_worst_k(_MT50, _TAIL),
        ),
    ),
    TableForm(
        "3",
        "Meta-World V1 (MT50), final-checkpoint IQM ± std",
        (_V1,),
        (
            _parameters(_V1),
            _success("Success rate %", "iqm", _V1),
            Column("TOPPO step to match", _step_to_match),
            Column("ours: TOPPO first at", lambda line: _millions_or_nothing(line.matched_first)),
            Column("ours: TOPPO for good from", lambda line: _millions_or_nothing(line.matched)),
            Column("Backbone", lambda line: line.note or NOTHING),
        ),
    ),
    TableForm(
        "B.2",
        "Parameters held in memory during training, without the optimizer's state",
        (_MT10, _MT50, _V1, ("MT10", "v1")),
        (_all_parameters("MT10"), _all_parameters("MT50"), Column("Notes", lambda line: line.note or NOTHING)),
        by_source=True,
    ),
    TableForm(
        "D.1",
        "PopArt x FG-c (alpha = 1) interaction on MT50 V2, actor by default, LN-c on",
        (_MT50,),
        (
            Column("PopArt", _has("PopArt")),
            Column("FG-c", _has("FG-c")),
            _success("MT50 mean", "final", _MT50),
            _success("MT50 worst-10", "worst_k", _MT50, k=10),
        ),
        keeps=lambda runs: _critic_only_ln(runs) and combiner_of(runs, "actor") == "mean" and "(" not in runs.method,
    ),
    TableForm(
        "D.2",
        "Per-side combiner asymmetry on MT50 V2, PopArt and LN-c on",
        (_MT50,),
        (
            Column("Actor method", lambda line: line.actor),
            Column("Critic method", lambda line: line.critic),
            _success("MT50 best", "best", _MT50),
            _success("MT50 final", "final", _MT50),
            _success("MT50 IQM", "iqm", _MT50),
        ),
        keeps=lambda runs: _critic_only_ln(runs) and runs.config["popart"] != "off",
    ),
    TableForm(
        "D.3",
        "V1-reward sensitivity on MT50, final-checkpoint IQM ± std at 25% trim",
        (_V1, _MT50),
        (
            _success("V1 IQM", "iqm", _V1),
            _success("V2 IQM", "iqm", _MT50),
            Column("V1 → V2 gap", _gap),
        ),
    ),
    TableForm("D.4", "Worst-k tail-task success rate (%) on MT50 under V1 rewards", (_V1,), _worst_k(_V1, "")),
    TableForm("D.5", "Per-task final-checkpoint success (%) on MT10 V2", (_MT10,), ()),
    TableForm("D.6", "Per-task final-checkpoint success (%) on MT50 V2", (_MT50,), ()),
    TableForm("D.7", "Per-task final-checkpoint success (%) on MT50 V1", (_V1,), ()),
    TableForm(
        "D.10",
        "Success (%) under four aggregators: best per seed, peak of the mean curve, final, late (last 10%)",
        (_MT10, _MT50),
        (*_four(_MT10), *_four(_MT50)),
    ),
    TableForm(
        "D.11",
        "Per-seed best-checkpoint step distribution, million environment steps",
        (_MT10, _MT50),
        (
            Column("Bench.", lambda line: line.benchmark),
            Column("Budget (M)", _steps("budget", form="{:g}")),
            Column("Median (M)", _steps("best_step_median")),
            Column("IQR (M)", _steps("best_step_q25", "best_step_q75", form="[{:.1f}, {:.1f}]")),
            Column("min-max (M)", _steps("best_step_min", "best_step_max", form="{:.1f}-{:.1f}")),
        ),
        by_benchmark=True,
        remarks=(ODD_STEPS,),
    ),
)
"""The tables of numbers, in the paper's order."""

PROTOCOLS = {"D.8": "Step budgets across papers", "D.9": "Reporting protocols across papers"}
"""The tables of text. Every run on the paper's benchmarks has a row in them."""

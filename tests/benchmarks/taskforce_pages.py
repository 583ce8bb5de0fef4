"""What TaskForce's study shows: Tables 7, 9 and 10 as Markdown, and Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.digits import METRICS, TASKS
from tests.benchmarks.taskforce_methods import BASELINES, NORMALISED, TASKFORCE
from tests.benchmarks.taskforce_runs import BASE, BUFFERS, CONTROLS, EVERY, FORMS, HELD, NOISES, RATIOS, STL, Study
from toppo_diag.plots.style import PAGE_WIDTH

LOOK = {"raw gradients": ("#0072B2", "o"), "normalised step": ("#D55E00", "s")}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def tables(study: Study) -> str:
    """Tables 7, 9 and 10, and the controls."""

    def line(label: str, spec: str) -> list[str]:
        runs = study.runs[spec]
        means = np.mean([run.metrics for run in runs], axis=0)
        return [label, *(f"{v:.3f}" for v in means[:3]), f"{means[3]:.4f}", study.cell(spec)]

    def control(label: str, spec: str) -> list[str]:
        weights = np.mean([run.weights / run.weights.sum() for run in study.runs[spec]], axis=0)
        bounds = study.mean(spec, lambda run: run.at_bounds)
        return [label, *(f"{v:.3f}" for v in weights), f"{100 * bounds:.0f} %", study.cell(spec)]

    def strategy(label: str, spec: str) -> list[str]:
        again = f"{spec},strategy=same"
        slower = study.times[again] / study.times[spec]
        return [label, study.cell(spec), study.cell(again), f"{slower:.2f}"]

    methods = {"STL (single-task learning)": STL, **BASELINES, **TASKFORCE, **NORMALISED}
    ratio_head = ["λ_L : λ_G", *(f"{reward}, {form}" for form in FORMS for reward in ("r_G", "r_G^IMTL"))]
    parts = [
        ("Table 9", table(["method", *METRICS, "Δm"], [line(*method) for method in methods.items()])),
        (
            "Table 7",
            table(
                ratio_head,
                [
                    [ratio, *(study.cell(spec + form) for form in FORMS.values() for spec in pair)]
                    for ratio, pair in RATIOS.items()
                ],
            ),
        ),
        (
            "Table 10",
            table(
                ["method", "Strategy 1", "Strategy 2", "time of 2 / 1"],
                [strategy(*method) for method in {**TASKFORCE, **NORMALISED}.items()],
            ),
        ),
        (
            "Controls",
            table(
                ["agents", *TASKS, "at both bounds", "Δm"],
                [
                    control(f"{label}, {form}", spec + option)
                    for form, option in FORMS.items()
                    for label, spec in {**CONTROLS, **(HELD if not option else {})}.items()
                ],
            ),
        ),
    ]
    return "\n\n".join(f"## {title}\n\n{body}" for title, body in parts) + "\n"


def sweep(ax: Axes, study: Study, options: Sequence[str]) -> None:
    """Delta-m of both forms along one option: mean and standard deviation, and each seed as a dot."""
    for side, (form, suffix) in zip((-1, 1), FORMS.items(), strict=True):
        colour, marker = LOOK[form]
        x = np.arange(len(options)) + 0.08 * side
        deltas = [study.delta(BASE + option + suffix) for option in options]
        for at, d in zip(x, deltas, strict=True):
            ax.plot(np.full(len(d), at), d, ".", color=colour, markersize=2, alpha=0.6)
        means, spread = [d.mean() for d in deltas], [d.std(ddof=1) for d in deltas]
        ax.errorbar(x, means, spread, color=colour, marker=marker, markersize=3, linewidth=1, capsize=2, label=form)
    ax.axhline(0, color="0.6", linewidth=0.5)


def figure_3(study: Study) -> Figure:
    """Replay buffer and noise."""
    figure = Figure(figsize=(PAGE_WIDTH, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sweep(left, study, list(BUFFERS.values()))
    left.set_xticks(range(len(BUFFERS)), [f"{n:,}" for n in BUFFERS])
    left.set(xlabel="transitions in the buffer", ylabel="Δm (%), lower is better")
    sweep(right, study, list(NOISES.values()))
    right.set_xticks(range(len(NOISES)), list(NOISES))
    right.set_xlabel("scale of the noise, first to last")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def figure_4(study: Study) -> Figure:
    """How often the agents are updated."""
    figure = Figure(figsize=(PAGE_WIDTH, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sweep(left, study, list(EVERY.values()))
    left.set(xlabel="steps between updates of the agents", ylabel="Δm (%), lower is better")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    for form, suffix in FORMS.items():
        cost = [study.times[BASE + option + suffix] for option in EVERY.values()]
        right.plot(np.array(cost) / cost[0], color=LOOK[form][0], marker=LOOK[form][1], markersize=3, linewidth=1)
    right.set(xlabel="steps between updates of the agents", ylabel="time of a step / with every step", ylim=(0, None))
    for ax in (left, right):
        ax.set_xticks(range(len(EVERY)), [str(n) for n in EVERY])
    return figure

"""The command `curves`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toppo_diag.commands.command import instrument
from toppo_diag.errors import bad_option
from toppo_diag.product import Product
from toppo_diag.request import Sources, Texts, as_paths, as_texts, several, stem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from toppo_diag.analysis.published import Published
    from toppo_diag.analysis.runs import Aligned, Run
    from toppo_diag.output import Row

FIGURES = ("success", "per-task", "worst-k", "ladder")


@instrument
def curves(
    runs: Sources, *, figure: str = "success", band: str = "std", tasks: Texts = None, published: str | None = None
) -> Product:
    """Success over training, as statistics over seeds, beside published baselines (Figures 1, 4 and D.6 to D.10).

    Args:
        figure: success (the mean over tasks), per-task, worst-k (the k worst tasks) or ladder (the last values of each
            configuration).
        band: what is drawn around a line: std or sem of the mean, iqm with its 95 % bootstrap interval, or iqm-std.
        tasks: only these tasks, separated by commas. No published number is drawn then.
        published: directory of the paper's numbers, in place of the numbers that come with toppo.
    """
    from toppo_diag.analysis.curves import BANDS
    from toppo_diag.analysis.runs import align_each, of_tasks, one_setting
    from toppo_diag.analysis.tables import group_notes
    from toppo_diag.reading.published import read_published
    from toppo_diag.reading.runs import read_runs

    for option, given, known in (("figure", figure, FIGURES), ("band", band, BANDS)):
        if given not in known:
            raise bad_option(option, given, f"give {', '.join(known[:-1])} or {known[-1]}", known)
    paper = read_published(published)
    whole = read_runs(as_paths(runs))
    found = [of_tasks(run, as_texts(tasks)) for run in whole]
    if figure != "success":
        one_setting(found)
    groups = align_each(found)
    make = {"success": _success, "per-task": _per_task, "worst-k": _worst_k, "ladder": _ladder}[figure]
    product = make(groups, band, paper)
    seeds = group_notes(groups, paper)[1:]  # the first is about the tables' numbers
    return Product(
        name=stem("curves", figure, _settings(whole), several([run.name for run in whole])),
        draw=product.draw,
        rows=product.rows,
        headline=product.headline,
        notes=list(dict.fromkeys([*seeds, *product.notes])),
    )


def _success(groups: Sequence[Aligned], band: str, paper: Published) -> Product:
    from toppo_diag.analysis import curves as analysis
    from toppo_diag.analysis.paper_tables import ODD_STEPS
    from toppo_diag.plots.curves import Panel, success_figure

    panels: list[Panel] = []
    rows: list[Row] = []
    crossings: list[Row] = []
    numbers: list[Row] = []
    notes: list[str] = []
    for setting in dict.fromkeys(group.setting for group in groups):
        members = [group for group in groups if group.setting == setting]
        levels = analysis.baselines(paper, *setting, len(members[0].tasks))
        lines = {g.label: (g.env_steps, analysis.band(g.curves, band)) for g in members}
        more = analysis.heavier(paper, members)
        marks = {f"{m}*" if m in more else m: analysis.level(row) for m, row in levels.items()}
        seeds = {g.label: len(g.seeds) for g in members}
        panels.append(Panel(_title(members[0]), lines, marks, seeds))
        metrics = {row.metric for row in levels.values()}
        if metrics and ("iqm" in metrics) != analysis.is_iqm(band):
            reported, ours = ("IQMs", "means") if "iqm" in metrics else ("means", "IQMs")
            mend = f"`band={'iqm' if 'iqm' in metrics else 'std'}` compares like with like"
            notes.append(f"{' '.join(setting)}: the published baselines are {reported}, the curves {ours}; {mend}")
        notes += [f"{' '.join(setting)}: {note}" for note in _marked(levels, more, paper, setting)]
        if setting == ("MT50", "v2"):
            notes.append(ODD_STEPS)
        if not levels:
            notes.append(f"{_where(members[0])} {setting[1]}: no published baselines")
        for g in members:
            found = {kind: analysis.band(g.curves, kind) for kind in analysis.BANDS}
            shown = found[band]
            at = {"benchmark": g.benchmark, "reward": g.reward, "label": g.label}
            rows += [
                {
                    **at,
                    "env_steps": int(step),
                    "n": len(g.seeds),
                    "mean": found["std"].centre[s],
                    "std": _known(found["std"].high[s] - found["std"].centre[s]),
                    "sem": _known(found["sem"].high[s] - found["sem"].centre[s]),
                    "iqm": found["iqm"].centre[s],
                    "iqm_low": _known(found["iqm"].low[s]),
                    "iqm_high": _known(found["iqm"].high[s]),
                }
                for s, step in enumerate(g.env_steps)
            ]
            steps = analysis.reached(g, band, levels)
            crossings += [
                {
                    **at,
                    "baseline": method,
                    "published": row.value,
                    "published_std": row.std,
                    "metric": row.metric,
                    "more_parameters": method in more,
                    "first_reached_at": steps[method][0],
                    "reached_for_good_at": steps[method][1],
                }
                for method, row in levels.items()
            ]
            numbers.append(
                {
                    **at,
                    "n": len(g.seeds),
                    "env_steps": g.last_step,
                    "final": float(shown.centre[-1]),
                    "low": _known(shown.low[-1]),
                    "high": _known(shown.high[-1]),
                    "baselines_reached": f"{sum(s is not None for _, s in steps.values())} of {len(levels)}",
                }
            )
    return Product(
        name="success",
        draw=lambda: success_figure(panels, band),
        rows={"": rows} | ({"-baselines": crossings} if crossings else {}),
        headline=numbers,
        notes=notes,
    )


def _per_task(groups: Sequence[Aligned], band: str, paper: Published) -> Product:
    from toppo_diag.analysis import curves as analysis
    from toppo_diag.plots.curves import per_task_figure

    tasks = groups[0].tasks
    order = analysis.worst_first(groups)
    panels: dict[str, dict[str, Any]] = {tasks[i]: {} for i in order}
    rows: list[Row] = []
    for g in groups:
        for i in order:
            found = analysis.band(g.success[:, :, i], band)
            panels[tasks[i]][g.label] = (g.env_steps, found)
            rows += [
                {
                    "task": tasks[i],
                    "label": g.label,
                    "env_steps": int(step),
                    "n": len(g.seeds),
                    _centre(band): found.centre[s],
                    "low": _known(found.low[s]),
                    "high": _known(found.high[s]),
                }
                for s, step in enumerate(g.env_steps)
            ]
    numbers = [
        {"task": task, **{label: float(found.centre[-1]) for label, (_, found) in lines.items()}}
        for task, lines in panels.items()
    ]
    return Product(
        name="per-task",
        draw=lambda: per_task_figure(panels, _title(groups[0]), band),
        rows={"": rows},
        headline=numbers,
        notes=[f"tasks are sorted by the last success under {analysis.headline(groups).label}, the least first"],
    )


def _marked(shown: Iterable[str], more: Collection[str], paper: Published, setting: tuple[str, str]) -> list[str]:
    """What the asterisks at published methods say, and which methods cannot have one."""
    from toppo_diag.analysis.curves import uncounted

    if not any(method in more for method in shown):
        return []
    unknown = uncounted(paper, shown, *setting)
    but = f"; no number of parameters is published for {', '.join(unknown)}" if unknown else ""
    return [f"* has more parameters than any of these runs{but}"]


def _worst_k(groups: Sequence[Aligned], band: str, paper: Published) -> Product:
    from toppo_diag.analysis import curves as analysis
    from toppo_diag.plots.curves import worst_k_figure

    bars = {g.label: analysis.worst_bands(g, band) for g in groups}
    best = analysis.best_worst_k(paper, *groups[0].setting, len(groups[0].tasks))
    levels = {k: (row.method, analysis.level(row)) for k, row in best.items() if k in bars[groups[0].label]}
    family = analysis.ars_family(paper, *groups[0].setting, len(groups[0].tasks))
    more = analysis.heavier(paper, groups)
    rows: list[Row] = [
        {
            "label": g.label,
            "whose": "ours",
            "n": len(g.seeds),
            "env_steps": g.last_step,
            "k": k,
            _centre(band): float(found.centre),
            "low": _known(found.low),
            "high": _known(found.high),
            "best_published": levels[k][0] if k in levels else "",
            "published": levels[k][1] if k in levels else None,
        }
        for g in groups
        for k, found in bars[g.label].items()
    ]
    rows += [
        {
            "label": method,
            "whose": "published",
            "n": None,
            "env_steps": None,
            "k": k,
            _centre(band): float(found.centre),
            "low": _known(found.low),
            "high": _known(found.high),
            "best_published": levels[k][0] if k in levels else "",
            "published": levels[k][1] if k in levels else None,
        }
        for method, by_k in family.items()
        for k, found in by_k.items()
    ]
    drawn = {f"{method}*" if method in more else method: by_k for method, by_k in family.items()}
    notes = [] if levels else [f"{_where(groups[0])} {groups[0].reward}: no published worst-k of others"]
    notes += _marked(family, more, paper, groups[0].setting)
    return Product(
        name="worst-k",
        draw=lambda: worst_k_figure(bars, levels, _title(groups[0]), band, published=drawn),
        rows={"": rows},
        headline=[
            {"label": label, **{f"worst_{k}": float(found.centre) for k, found in by_k.items()}}
            for label, by_k in bars.items()
        ],
        notes=notes,
    )


def _ladder(groups: Sequence[Aligned], band: str, paper: Published) -> Product:
    from toppo_diag.analysis import curves as analysis
    from toppo_diag.plots.curves import ladder_figure

    first = groups[0]
    levels = analysis.baselines(paper, *first.setting, len(first.tasks))
    strongest = next(iter(levels.values()), None)
    bars = {"final mean": {g.label: analysis.band(g.curves[-1], band) for g in groups}}
    lines = {} if strongest is None else {"final mean": (strongest.method, analysis.level(strongest))}
    if len(first.tasks) > analysis.TAIL:
        tail = f"final worst-{analysis.TAIL}"
        bars[tail] = {g.label: analysis.worst_bands(g, band)[analysis.TAIL] for g in groups}
        best = analysis.best_worst_k(paper, *first.setting, len(first.tasks)).get(analysis.TAIL)
        if best is not None:
            lines[tail] = (best.method, analysis.level(best))
    rows = [
        {
            "label": g.label,
            "n": len(g.seeds),
            "env_steps": g.last_step,
            "metric": metric,
            _centre(band): float(by_label[g.label].centre),
            "low": _known(by_label[g.label].low),
            "high": _known(by_label[g.label].high),
            "best_published": lines[metric][0] if metric in lines else "",
            "published": lines[metric][1] if metric in lines else None,
        }
        for metric, by_label in bars.items()
        for g in groups
    ]
    return Product(
        name="ladder",
        draw=lambda: ladder_figure(bars, lines, _title(first), band),
        rows={"": rows},
        headline=rows,
    )


def _centre(band: str) -> str:
    return "iqm" if band.startswith("iqm") else "mean"


def _known(value: Any) -> float | None:
    """A number, or None for the spread of one seed."""
    return None if value != value else float(value)


def _where(group: Aligned | Run) -> str:
    """The name of a benchmark. A list of tasks is named by their number."""
    return f"{len(group.tasks)}-tasks" if "," in group.benchmark else group.benchmark


def _title(group: Aligned) -> str:
    return f"{_where(group).replace('-', ' ')}, {group.reward.upper()} rewards"


def _settings(groups: Sequence[Run]) -> str:
    return "-".join(dict.fromkeys(f"{_where(g)}-{g.reward}" for g in groups))

"""The parts of the page that need no script: findings, what would help, explanations, and all checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from toppo_diag.analysis.findings import Check, state_of
from toppo_diag.analysis.recorded import RunRecord
from toppo_diag.analysis.thresholds import THRESHOLDS
from toppo_diag.analysis.what_if import Option
from toppo_diag.reporting.payload import embedded
from toppo_diag.reporting.text import html, ranged, shown
from toppo_diag.reporting.words import EXPLANATIONS

_COLUMNS = (
    "Worst cosine: the smallest cos(g<sub>i</sub>, d) of a task with the step d. "
    "Worst progress: the smallest ⟨g<sub>i</sub>, d⟩ / ‖d‖, the decrease of that task's loss for each unit of length "
    "of the step; compare it only among rows with the same gradients. Opposed: tasks whose loss rises."
)
"""What the columns of the table of combiners hold."""
_GRADIENTS = {True: " with PopArt's rescaling", False: " with PopArt's rescaling taken back", None: ""}
_WORDS = {"trouble": "Trouble", "note": "Note", "fine": "Fine", "unknown": "Not known"}


def findings(runs: Sequence[RunRecord], checks: Sequence[Sequence[Check]], kept: Sequence[Sequence[int]]) -> str:
    """The findings of every run, then what is missing and all checks; of several runs also a table by run.

    Args:
        runs: what each run recorded.
        checks: of each run.
        kept: for each run, the indices of the tasks that the views show.
    """
    parts = [_by_run(runs, checks)] if len(runs) > 1 else []
    for n, (run, of_run) in enumerate(zip(runs, checks, strict=True)):
        if len(runs) > 1:
            parts.append(f"<h3>{html(run.name)}</h3>")
        parts.append(_list(n, run, of_run, kept[n]))
        if run.missing:
            items = "".join(f"<li>{html(line)}</li>" for line in run.missing)
            parts.append(f"<details><summary>What is missing ({len(run.missing)})</summary><ul>{items}</ul></details>")
        parts.append(f"<details><summary>All checks with their numbers</summary>{_table(of_run)}</details>")
    return "\n".join(parts)


def _list(n: int, run: RunRecord, checks: Sequence[Check], kept: Sequence[int]) -> str:
    found = [check for check in checks if check.verdict in ("trouble", "note")]
    made = sum(check.verdict == "fine" for check in checks)
    unknown = sum(check.verdict == "unknown" for check in checks)
    items = [_item(n, check, kept) for check in found]
    state_of_run = state_of([check.verdict for check in checks])
    if state_of_run == "healthy":
        state = f"No trouble found: {made} checks are within their thresholds."
        if unknown:
            state += f" {unknown} could not be made."
        items.insert(0, f'<li class="fine"><span class="verdict">Healthy.</span> {state}</li>')
    elif state_of_run == "unknown":
        reason = "Nothing can be judged yet. What is missing stands below."
        items.insert(0, f'<li><span class="verdict">Not known.</span> {reason}</li>')
    return f'<ul class="findings">{"".join(items)}</ul>'


def _item(n: int, check: Check, kept: Sequence[int]) -> str:
    explanation = EXPLANATIONS[check.kind]
    threshold = THRESHOLDS[check.threshold]
    compared = "above" if threshold.above else "below"
    evidence = (
        f"{html(threshold.quantity[0].upper() + threshold.quantity[1:])}: "
        f"{ranged(check.number, check.low, check.high)}; "
        f"a finding {compared} {shown(check.limit)}. "
        f"{_when(check)}. Rests on {check.minibatches} minibatches."
    )
    show = ""
    if explanation.view is not None:
        show = f'<button type="button" data-show="{html(embedded(_target(n, check, kept)))}">Show</button> '
    title = f"{_WORDS[check.verdict]}, {html(check.side)}: {html(explanation.title)}."
    means = f'<a href="#explain-{check.kind}">What this means</a>'
    return (
        f'<li class="{check.verdict}" data-kind="{check.kind}"><span class="verdict">{title}</span> {html(check.text)}'
        f'<br><span class="evidence">{evidence}</span><br>{show}{means}</li>'
    )


def _target(n: int, check: Check, kept: Sequence[int]) -> dict[str, object]:
    """What the views are set to when a finding is shown. Its tasks are told by their place on the page."""
    place = {task: k for k, task in enumerate(kept)}
    explanation = EXPLANATIONS[check.kind]
    pair = [place[t] for t in check.pair if t in place] if check.pair else []
    choose = dict(explanation.choose)
    if check.kind == "collapse":
        choose["total"] = "mean |cos|" if check.threshold == "cosine" else "effective rank"
    return {
        "run": n,
        "side": check.side,
        "view": explanation.view,
        "tasks": [place[t] for t in check.tasks if t in place],
        "pair": pair if len(pair) == 2 else None,
        "layer": "",
        "step": check.since,
        "choose": choose,
    }


def _when(check: Check) -> str:
    if check.since is None:
        return "Over the whole recording"
    return f"Since step {check.since:,}" if check.until is None else f"From step {check.since:,} to {check.until:,}"


def _table(checks: Sequence[Check]) -> str:
    header = ("check", "side", "verdict", "number", "threshold", "what is compared", "steps", "minibatches")
    rows = [
        (
            EXPLANATIONS[check.kind].topic,
            check.side,
            _WORDS[check.verdict],
            ranged(check.number, check.low, check.high),
            f"{'above' if THRESHOLDS[check.threshold].above else 'below'} {shown(check.limit)}",
            THRESHOLDS[check.threshold].quantity
            + (f". {check.text}" if check.text and check.verdict in ("fine", "unknown") else ""),
            str(check.steps),
            str(check.minibatches),
        )
        for check in checks
    ]
    return table(header, rows, numbers=(3, 6, 7), classes={2: [check.verdict for check in checks]})


def _by_run(runs: Sequence[RunRecord], checks: Sequence[Sequence[Check]]) -> str:
    """One row for each check and side, one column for each run."""
    of_run = [{(c.kind, c.threshold, c.side): c for c in found} for found in checks]
    keys = list(dict.fromkeys(key for found in of_run for key in found))
    order = list(EXPLANATIONS)
    keys.sort(key=lambda key: order.index(key[0]))
    rows = []
    classes: dict[int, list[str]] = {n + 3: [] for n in range(len(runs))}
    for key in keys:
        cells = [found.get(key) for found in of_run]
        rows.append(
            (
                EXPLANATIONS[key[0]].topic,
                THRESHOLDS[key[1]].quantity,
                key[2],
                *(_cell(c) for c in cells),
            )
        )
        for n, c in enumerate(cells):
            classes[n + 3].append("" if c is None else c.verdict)
    return "<h3>Findings by run</h3>" + table(
        ("check", "what is compared", "side", *(run.name for run in runs)), rows, classes=classes
    )


def _cell(check: Check | None) -> str:
    """A check of one run in the table by run."""
    if check is None:
        return ""
    word = _WORDS[check.verdict]
    return word if check.verdict == "unknown" else f"{word}, {shown(check.number)}"


def what_if(runs: Sequence[RunRecord], options: Sequence[Mapping[str, tuple[Sequence[Option], Sequence[str]]]]) -> str:
    """What each combiner would do with the gradients of each side of each run, the kindest to the worst task first."""
    parts = []
    for run, of_run in zip(runs, options, strict=True):
        for side, (found, notes) in of_run.items():
            title = f"{run.name}, {side}" if len(runs) > 1 else side
            if not found:
                parts += [f"<h3>{html(title)}</h3>", *(f'<p class="absent">{html(note)}.</p>' for note in notes)]
                continue
            parts.append(
                f"<h3>{html(title)}</h3>{_best(found)}<details><summary>All combiners</summary>{_options(found)}"
            )
            rests_on = f"Medians over {found[0].minibatches} minibatches, with their ranges in brackets"
            parts += [f'<p class="evidence">{html(note)}.</p>' for note in (rests_on, *notes)]
            parts.append("</details>")
    if not parts:
        return '<p class="absent">No gradient was recorded yet, so there is nothing to combine again.</p>'
    return "\n".join([*parts, f'<p class="evidence">{_COLUMNS}</p>'])


def _best(found: Sequence[Option]) -> str:
    """The comparison in one sentence: training's step, and the one that is kindest to the worst task."""
    best, used = found[0], next((option for option in found if option.used), None)
    kindest = f"{html(best.combiner)}{_GRADIENTS[best.popart]} would be kindest to the worst task: {_measures(best)}."
    if used is None:
        return f"<p>{kindest}</p>"
    now = f"Training used {html(used.combiner)}: {_measures(used)}."
    if best.worst_cosine.median - used.worst_cosine.median < 0.05:
        return f"<p>{now} No other combiner is much kinder to the worst task.</p>"
    return f"<p>{now} {kindest}</p>"


def _measures(option: Option) -> str:
    cosine, spread, opposed = (shown(v.median) for v in (option.worst_cosine, option.spread, option.opposed))
    worst = f"the worst task's cosine with the step is {cosine}"
    return f"{worst}, {opposed} tasks are opposed, contributions are {spread} times apart"


def _options(found: Sequence[Option]) -> str:
    header = (
        "combiner",
        "gradients",
        "worst cosine",
        "worst progress",
        "spread of contributions",
        "opposed",
    )
    gradients = {True: "with PopArt", False: "PopArt taken back", None: "as trained"}
    rows = [
        (
            o.combiner + (" (training's)" if o.used else ""),
            gradients[o.popart],
            *(ranged(v.median, v.low, v.high) for v in (o.worst_cosine, o.worst_progress, o.spread, o.opposed)),
        )
        for o in found
    ]
    return table(header, rows, numbers=range(2, 6), marked=[o.used for o in found])


def explanations(kinds: Iterable[str]) -> str:
    """How to read the findings of these kinds."""
    asked = set(kinds)
    return "\n".join(
        f'<h3 id="explain-{kind}">{html(explanation.title)}</h3><p>{html(explanation.read)}</p>'
        for kind, explanation in EXPLANATIONS.items()
        if kind in asked
    )


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Iterable[int] = (),
    classes: Mapping[int, Sequence[str]] | None = None,
    marked: Sequence[bool] = (),
) -> str:
    """A table as HTML. The texts are escaped here.

    Args:
        header: names of the columns.
        rows: texts of the cells.
        numbers: columns to align to the right.
        classes: class of each cell of some columns.
        marked: which rows stand out.
    """
    right = set(numbers)

    def cell(column: int, text: str, row: int) -> str:
        names = ["number"] * (column in right)
        if classes and column in classes:
            names.append(classes[column][row])
        attribute = f' class="{" ".join(names)}"' if any(names) else ""
        return f"<td{attribute}>{html(text)}</td>"

    head = "".join(
        f'<th scope="col"{" class=number" if c in right else ""}>{html(name)}</th>' for c, name in enumerate(header)
    )
    lines = ["".join(cell(c, text, r) for c, text in enumerate(row)) for r, row in enumerate(rows)]
    body = "".join(f"<tr{' class=used' if marked and marked[r] else ''}>{line}</tr>" for r, line in enumerate(lines))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

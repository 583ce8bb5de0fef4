"""What is wrong with a run: checks of its gradients against thresholds, each in plain words with its number.

Every number is a median over the minibatches of each step. A finding is a stretch of several steps beyond its
threshold (`toppo_diag.analysis.spells`), so none rests on a single minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import Status
from toppo.combiners.geometry import effective_rank, gradient_norms, mean_abs_cosine, spread
from toppo_diag.analysis.conflicts import layer_conflicts, pair_cosines
from toppo_diag.analysis.direction import Direction
from toppo_diag.analysis.evenness import from_even, part_of
from toppo_diag.analysis.presence import of_pairs
from toppo_diag.analysis.recorded import Curve, RunRecord, SideRecord
from toppo_diag.analysis.series import Steps
from toppo_diag.analysis.spells import LEAST_MINIBATCHES, LEAST_STEPS, Spell, enough, last_spells, smooth
from toppo_diag.analysis.tasks import short
from toppo_diag.analysis.thresholds import THRESHOLDS, Thresholds
from toppo_diag.analysis.typical import Typical, typical

MOST_NAMED = 5
"""Tasks or pairs that a sentence names."""
State = Literal["trouble", "healthy", "unknown"]
_ONE_TASK = "There is one task."
_NO_NUMBER = "No such number was recorded."
_NO_PAIR = "In no minibatch do two tasks have a gradient."
_UNSOLVED = (Status.NOT_CONVERGED, Status.LEAST_SQUARES, Status.UNIFORM)


@dataclass(frozen=True)
class Check:
    """One check of one side, and what it found.

    Attributes:
        kind: which check: spread, starved, top_1, conflict, collapse, dead, not_finite, clipped, clip_factor, solver
            or popart.
        side: the side.
        verdict: "trouble"; "note" for what is over, or is evened out; "fine"; "unknown" if it could not be checked.
        text: the finding in plain words, or why it could not be checked; "" where all is fine.
        threshold: the name of the threshold.
        limit: its value, in the unit of `number`.
        number: what was compared with it: the median over the stretch; where all is fine, the last typical number.
            NaN if unknown.
        low, high: range of the number over the minibatches that it is typical of; NaN if unknown, or if the number is a
            share of the minibatches.
        since: first steps of the stretch; None where all is fine.
        until: last steps of it; None if the recording ends within the stretch.
        steps: recorded steps that the number rests on.
        minibatches: minibatches that it rests on.
        tasks: indices of the tasks that it is about, the worst first.
        pair: the worst pair; None if it is not about pairs.
        layer: the layer that brings the most negative cosine to the worst pair; None if unknown.
    """

    kind: str
    side: str
    verdict: str
    text: str
    threshold: str
    limit: float
    number: float
    low: float = math.nan
    high: float = math.nan
    since: int | None = None
    until: int | None = None
    steps: int = 0
    minibatches: int = 0
    tasks: tuple[int, ...] = ()
    pair: tuple[int, int] | None = None
    layer: str | None = None


def checks(run: RunRecord, thresholds: Thresholds) -> list[Check]:
    """Every check of every side of a run: trouble first, then notes, what is fine, and what could not be checked.

    Args:
        run: what the run recorded.
        thresholds: the value of every threshold, from `thresholds_of`.
    """
    every = [
        check
        for side, record in run.sides.items()
        for of_kind in _CHECKS
        for check in of_kind(_Asked(run, side, record, thresholds))
    ]
    order = ("trouble", "note", "fine", "unknown")
    return sorted(every, key=lambda check: order.index(check.verdict))


def state_of(verdicts: Collection[str]) -> State:
    """What the checks of one run say together.

    A run is healthy if nothing is in trouble and most of its checks could be made. Otherwise nothing can be judged yet.
    """
    if "trouble" in verdicts:
        return "trouble"
    made = sum(verdict != "unknown" for verdict in verdicts)
    return "healthy" if made > len(verdicts) - made else "unknown"


@dataclass(frozen=True)
class _Asked:
    """One side of a run, and the thresholds. The parts of a check that all checks have."""

    run: RunRecord
    side: str
    record: SideRecord
    thresholds: Thresholds

    @cached_property
    def direction(self) -> Direction:
        """The step of training."""
        return Direction.of(self.record)

    @property
    def assumed(self) -> str:
        """What has to be said where the weights were not recorded."""
        if not self.direction.assumed:
            return ""
        return " The run recorded no weights, so this is for a plain sum of the losses."

    def names(self, tasks: tuple[int, ...]) -> str:
        """The tasks as text, the first few by name."""
        return _listing([short(self.run.tasks[i]) for i in tasks])

    def blank(self, kind: str, threshold: str = "") -> Check:
        """The check before it has found anything."""
        name = threshold or kind
        return Check(kind, self.side, "fine", "", name, self.thresholds[name], float("nan"))

    def unknown(self, kind: str, why: str, threshold: str = "") -> Check:
        """A check that could not be made."""
        return replace(self.blank(kind, threshold), verdict="unknown", text=why)

    def one(
        self, blank: Check, steps: np.ndarray, values: Float[np.ndarray, "N"], lacking: str = _NO_PAIR
    ) -> tuple[Check, Spell | None]:
        """A check of one number for each minibatch, and the stretch beyond the threshold."""
        check, found = self.each(blank, steps, values[:, None], lacking=lacking)
        return check, found.get(0)

    def each(
        self,
        blank: Check,
        steps: np.ndarray,
        values: Float[np.ndarray, "N J"],
        share: bool = False,
        lacking: str = _NO_NUMBER,
    ) -> tuple[Check, dict[int, Spell]]:
        """A check of J numbers for each minibatch, such as one for each task, and the stretches by index.

        The worst stretch comes first. A minibatch without a number (NaN) does not count.

        Args:
            blank: the check before it has found anything.
            steps: of the N minibatches.
            values: NaN where there is no number.
            share: whether the number of a step is the share of its minibatches, a mean, which has no range. If not, it
                is their median.
            lacking: what to say where no minibatch has a number.
        """
        some = np.isfinite(values).any(axis=1)
        if len(steps) and not some.any():
            return replace(blank, verdict="unknown", text=lacking), {}
        distinct = Steps.of(steps[some])
        judged = enough(distinct.count(values[some]))
        if not judged.any():
            return self.too_few(blank, steps[some]), {}
        number = distinct.mean if share else distinct.median
        at, level = distinct.env_steps, np.where(judged, number(values[some]), np.nan)
        above = THRESHOLDS[blank.threshold].above
        found = last_spells(at, level, blank.limit, above)
        for j, spell in found.items():
            if not share:
                around = _within(steps, values[:, j], spell.since, spell.until)
                found[j] = replace(spell, low=around.low, high=around.high)
        smoothed = smooth(level)
        end = int(np.flatnonzero(np.isfinite(smoothed).any(axis=1))[-1])
        worst = int(np.nanargmax(smoothed[end]) if above else np.nanargmin(smoothed[end]))
        extreme = float(smoothed[end, worst])
        made = replace(blank, number=extreme, steps=len(at), minibatches=int(some.sum()))
        if not share:
            around = _within(steps, values[:, worst], at[max(end - 1, 0)], at[min(end + 1, len(at) - 1)])
            made = replace(made, low=around.low, high=around.high)
        if not found and (extreme > blank.limit if above else extreme < blank.limit):
            made = replace(made, text="Beyond the threshold at the last step alone, which does not count")
        return (_beyond(made, *found.values()) if found else made), found

    def from_even(
        self, blank: Check, steps: np.ndarray, part: Float[np.ndarray, "N"], tasks: Int[np.ndarray, "N"]
    ) -> tuple[Check, Spell | None]:
        """A check of a part of a whole, on the scale of `from_even`. Number and limit are told as parts again.

        Args:
            blank: the check before it has found anything.
            steps: of the N minibatches.
            part: of the whole.
            tasks: how many tasks share the whole in each minibatch.
        """
        values = from_even(part, tasks)
        check, found = self.one(blank, steps, values)
        known = tasks[np.isfinite(values)]
        n = float(np.median(known)) if known.size else len(self.run.tasks)
        number, low, high, limit = (part_of(way, n) for way in (check.number, check.low, check.high, check.limit))
        return replace(check, number=number, low=low, high=high, limit=limit), found

    def too_few(self, blank: Check, steps: np.ndarray) -> Check:
        """A check with too little to rest on."""
        held = f"{len(steps)} minibatches at {len(np.unique(steps))} steps"
        least = f"a judgement needs {LEAST_MINIBATCHES} at {LEAST_STEPS} steps"
        return replace(blank, verdict="unknown", text=f"Too little is recorded ({held}); {least}.")


def _beyond(made: Check, *found: Spell) -> Check:
    """The check with its stretch. Of several, the earliest start and the worst number count."""
    lasts = [spell.until for spell in found if spell.until is not None]
    until = max(lasts) if len(lasts) == len(found) else None
    return replace(
        made,
        verdict="trouble" if until is None else "note",
        number=found[0].value,
        low=found[0].low,
        high=found[0].high,
        since=min(spell.since for spell in found),
        until=until,
        steps=max(spell.steps for spell in found),
    )


def _within(steps: np.ndarray, values: Float[np.ndarray, "N"], since: int, until: int | None) -> Typical:
    """What is typical of the minibatches from one step to another; to the end if that is None."""
    return typical(values[(steps >= since) & (steps <= (np.inf if until is None else until))])


def _spread(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    if len(asked.run.tasks) < 2:
        yield asked.unknown("spread", _ONE_TASK)
        return
    norms = gradient_norms(record.gram)
    ratio = of_pairs(spread(norms), record.gram)
    check, found = asked.one(asked.blank("spread"), record.steps, ratio)
    if found is None:
        yield check
        return
    at = Steps.of(record.steps)
    level = at.median(np.where((norms > 0) & np.isfinite(ratio)[:, None], norms, np.nan))[at.env_steps >= found.since]
    within = Steps.of(np.zeros(len(level), dtype=int)).median(level)[0]
    most, least = int(np.nanargmax(within)), int(np.nanargmin(within))
    text = (
        f"The longest gradient is typically {_number(check.number)} times the shortest. "
        f"{asked.names((most,))} is the longest, {asked.names((least,))} the shortest."
    )
    apart = _last_typical(asked.direction.steps, asked.direction.spread)
    if not asked.direction.assumed and apart < asked.thresholds["evened"]:
        text += (
            f" The combiner ({record.spec or 'unknown'}) evens this out: contributions differ {_number(apart)} times."
        )
        check = replace(check, verdict="note")
    elif np.isinf(apart):
        text += f" At the end, tasks with a gradient contribute nothing to the step.{asked.assumed}"
    elif np.isfinite(apart):
        text += f" At the end, contributions to the step differ {_number(apart)} times.{asked.assumed}"
    yield replace(check, text=text, tasks=(least, most))


def _last_typical(steps: np.ndarray, values: Float[np.ndarray, "M"]) -> float:
    level = smooth(Steps.of(steps).median(values))
    return float(level[-1]) if len(level) else float("nan")


def _starved(asked: _Asked) -> Iterator[Check]:
    if len(asked.run.tasks) < 2:
        yield asked.unknown("starved", _ONE_TASK)
        return
    # a dead task is a finding of its own, an absent one is none
    check, found = asked.each(
        asked.blank("starved"), asked.direction.steps, asked.direction.even_shares, lacking=_NO_PAIR
    )
    if not found:
        yield check
        return
    still = {task: _stands_still(asked, task, spell) for task, spell in found.items()}
    stuck = tuple(task for task, stands in still.items() if stands is not False)
    if not stuck:
        text = f"The step holds little of {asked.names(tuple(found))}, but these tasks still learn."
        yield replace(check, verdict="note", text=text + asked.assumed, tasks=tuple(found))
        return
    check = _beyond(check, *(found[task] for task in stuck))
    known = [task for task in stuck if still[task]]
    what = (
        "No gain in success, return or loss in that time."
        if known
        else "No success, return or loss of these tasks was recorded, so it is not known whether they learn."
    )
    others = tuple(task for task in found if task not in stuck)
    learning = f" It holds little of {asked.names(others)} too, and these still learn." if others else ""
    text = f"The step holds little or nothing of {asked.names(stuck)}. {what}{learning}{asked.assumed}"
    verdict = check.verdict if known else "note"
    yield replace(check, verdict=verdict, text=text, tasks=stuck)


def _stands_still(asked: _Asked, task: int, spell: Spell) -> bool | None:
    """Whether a task has not improved since a stretch began; None if that is not known."""
    success = asked.run.success
    if success is not None and (ends := _ends_of(success, task, spell)):
        return ends[1] < 1 - asked.thresholds["success_gain"] and ends[1] - ends[0] < asked.thresholds["success_gain"]
    returns = [c for c in asked.run.curves if c.name == "return"]
    if returns and (ends := _ends_of(returns[0], task, spell)):
        return ends[1] - ends[0] < asked.thresholds["return_gain"] * abs(ends[0])
    losses = [c for c in asked.run.curves if c.name in (f"loss_{asked.side}", "loss")]
    if losses and (ends := _ends_of(losses[0], task, spell)):
        return ends[0] - ends[1] < asked.thresholds["loss_drop"] * abs(ends[0])
    return None


def _ends_of(curve: Curve, task: int, spell: Spell) -> tuple[float, float] | None:
    """The first and the last smoothed value of a curve within a stretch; None with fewer than two values."""
    until = np.inf if spell.until is None else spell.until
    within = (curve.steps >= spell.since) & (curve.steps <= until) & np.isfinite(curve.values[:, task])
    values = curve.values[within, task]
    if len(values) < 2:
        return None
    level = smooth(values)
    return float(level[0]), float(level[-1])


def _top_1(asked: _Asked) -> Iterator[Check]:
    if len(asked.run.tasks) < 2:
        yield asked.unknown("top_1", _ONE_TASK)
        return
    step = asked.direction
    check, found = asked.from_even(asked.blank("top_1"), step.steps, step.top_1, step.known.sum(axis=1))
    if found is None:
        yield check
        return
    at = Steps.of(step.steps)
    within = at.median(step.contributions)[at.env_steps >= found.since]
    holder = (int(np.nanargmax(Steps.of(np.zeros(len(within), dtype=int)).median(within)[0])),)
    text = f"One task makes {100 * check.number:.0f}% of the step, most often {asked.names(holder)}.{asked.assumed}"
    yield replace(check, text=text, tasks=holder)


def _conflict(asked: _Asked) -> Iterator[Check]:
    k = len(asked.run.tasks)
    if k < 2:
        yield asked.unknown("conflict", _ONE_TASK)
        return
    record = asked.record
    i, j = np.triu_indices(k, 1)
    check, found = asked.each(
        asked.blank("conflict"), record.steps, pair_cosines(record.gram)[:, i, j], lacking=_NO_PAIR
    )
    if not found:
        yield check
        return
    worst = next(iter(found))
    pair = int(i[worst]), int(j[worst])
    listed = _listing([f"{short(asked.run.tasks[i[p]])} against {short(asked.run.tasks[j[p]])}" for p in found])
    pairs = "One pair opposes" if len(found) == 1 else f"{len(found)} of {len(i)} pairs oppose"
    text = f"{pairs} each other in most minibatches: {listed}. The worst has a typical cosine of {check.number:.2f}."
    layer = _worst_layer(record, pair)
    if layer is not None:
        text += f" The layer {layer} brings most of it."
    tasks = tuple(dict.fromkeys(int(t) for p in found for t in (i[p], j[p])))
    yield replace(check, text=text, tasks=tasks, pair=pair, layer=layer)


def _worst_layer(record: SideRecord, pair: tuple[int, int]) -> str | None:
    """The layer that brings the most negative cosine to a pair; None if the layers are not known or none does."""
    if record.layers is None:
        return None
    G = record.layers.values[:, :, pair][:, :, :, pair]
    worst = layer_conflicts(record.layers.steps, {name: G[:, n] for n, name in enumerate(record.layers.names)})[0]
    return worst.name if worst.conflict > 0 else None


def _collapse(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    if len(asked.run.tasks) < 2:
        yield asked.unknown("collapse", _ONE_TASK, "cosine")
        return
    told = "The gradients point along few common directions: "
    cosine = of_pairs(mean_abs_cosine(record.gram), record.gram)
    check, found = asked.one(asked.blank("collapse", "cosine"), record.steps, cosine)
    if found is not None:
        check = replace(check, text=f"{told}the mean |cos| of two tasks is {check.number:.2f}.")
    yield check
    live = (gradient_norms(record.gram) > 0).sum(axis=1)
    rank = effective_rank(record.gram) / np.maximum(live, 1)
    check, found = asked.from_even(asked.blank("collapse", "rank"), record.steps, rank, live)
    if found is not None:
        check = replace(check, text=f"{told}they span {check.number:.0%} as many directions as there are tasks.")
    yield check


def _dead(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    dead = np.where(record.present, gradient_norms(record.gram) == 0, np.nan)
    # The share of a step's minibatches is the number here, so its mean takes the place of the median.
    check, found = asked.each(asked.blank("dead"), record.steps, dead, share=True)
    if found:
        tasks = tuple(found)
        text = f"{asked.names(tasks)}: no gradient in most minibatches, so the loss does not reach the {asked.side}."
        check = replace(check, text=text, tasks=tasks)
    yield check


def _not_finite(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    at = np.unique(record.finite_at)
    check = replace(asked.blank("not_finite"), minibatches=len(record.finite), steps=len(at))
    if not len(at):
        yield replace(check, verdict="unknown", text="No snapshot is recorded yet.")
        return
    bad = record.finite == 0
    share = bad.mean(axis=0)
    check = replace(check, number=float(share.max()))
    if check.number <= check.limit:
        yield check
        return
    tasks = tuple(int(t) for t in np.argsort(-share, kind="stable") if share[t] > 0)
    hit = bad.any(axis=1)
    text = f"The gradient of {asked.names(tasks)} is not finite in {hit.sum()} of {len(bad)} minibatches."
    since, until = _first_and_last(at, np.unique(record.finite_at[hit]))
    verdict = "trouble" if hit.sum() > 1 and until is None else "note"
    yield replace(check, verdict=verdict, text=text, since=since, until=until, tasks=tasks)


def _first_and_last(at: Int[np.ndarray, "T"], hit: Int[np.ndarray, "H"]) -> tuple[int, int | None]:
    """The first and the last step at which something happened now and then; None for the last if it is not over.

    It is over if it has been away for two steps or more, and for longer than it ever was in between.
    """
    place = np.searchsorted(at, hit)
    away = len(at) - 1 - int(place[-1])
    longest = int(np.diff(place).max(initial=1)) - 1
    return int(hit[0]), int(hit[-1]) if away >= LEAST_STEPS and away > longest else None


def _clipped(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    name = {"actor": "ratio_clip_fraction", "critic": "value_clip_fraction"}.get(asked.side, "")
    if name in record.per_task:
        check, found = asked.each(asked.blank("clipped"), record.at, record.per_task[name])
        if found:
            tasks = tuple(found)
            text = (
                f"PPO's clip removes {100 * check.number:.0f}% of the samples of {asked.names(tasks)}. "
                "What it removes has no gradient, so these tasks are silenced."
            )
            check = replace(check, text=text, tasks=tasks)
        yield check
    if "clip_factor" in record.single:
        check, spell = asked.one(asked.blank("clip_factor"), record.at, record.single["clip_factor"], _NO_NUMBER)
        if spell is not None:
            text = f"The clip of the gradient norm shortens every step to {_number(check.number)} of its length."
            check = replace(check, text=text)
        yield check


def _solver(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    if record.status is None:
        return
    unsolved = np.where(np.isfinite(record.status), np.isin(record.status, _UNSOLVED), np.nan)
    check, found = asked.each(asked.blank("solver"), record.at, unsolved[:, None], share=True)
    if found:
        text = f"The combiner ({record.spec or 'unknown'}) did not solve {100 * check.number:.0f}% of the minibatches."
        check = replace(check, text=text)
    yield check


def _popart(asked: _Asked) -> Iterator[Check]:
    record = asked.record
    loss = record.per_task.get(f"loss_{asked.side}")
    if record.sigma is None or loss is None:
        return
    check, found = asked.each(asked.blank("popart"), record.at, loss)
    if found:
        tasks = tuple(found)
        text = (
            f"PopArt's statistics lag behind {asked.names(tasks)}: the value loss is {_number(check.number)} in "
            "normalised units. Predicting the mean would give 1."
        )
        check = replace(check, text=text, tasks=tasks)
    yield check


_CHECKS: tuple[Callable[[_Asked], Iterator[Check]], ...] = (
    *(_starved, _top_1, _spread, _conflict, _collapse),
    *(_dead, _not_finite, _clipped, _solver, _popart),
)


def _listing(names: list[str]) -> str:
    """Names as a text: the first few, and how many more."""
    shown, more = names[:MOST_NAMED], len(names) - MOST_NAMED
    text = ", ".join(shown)
    return f"{text} and {more} more" if more > 0 else text


def _number(value: float) -> str:
    """A number with two or three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"

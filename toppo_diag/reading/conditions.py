"""The conditions of Figures 3, D.1 and D.3: which of PopArt and LayerNorm the critic has.

Each dump gives one condition. A dump of a run with PopArt gives a second one: the same gradients with PopArt's
rescaling taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from toppo.dump import ENV_STEPS, Dump
from toppo.dump.files import is_url, local_path
from toppo_diag.analysis.scale import scaled, without_popart
from toppo_diag.errors import UsageError
from toppo_diag.reading.dumps import Grams, read_grams
from toppo_diag.request import Request, several

SUCCESS = ("success_ema", "success", "accuracy")
"""Names under which a run may have recorded the success of each task. The first one that exists is used."""
PER_TASK = ("episode_return",)
"""Further names under which a run may have recorded how well each task does. Losses come last."""
SUCCESS_LABEL = "success (long moving average)"
"""What `success_ema` is, as an axis says it."""
Scale = Literal["rate", "log", "own"]
ORDER = ("vanilla", "+PopArt", "+LN", "+PopArt+LN")
"""The columns of Figure D.1."""


@dataclass(frozen=True)
class Condition:
    """One column of a figure: the Grams of a dump, with PopArt's rescaling or with it taken back."""

    label: str
    dump: Dump
    invert_popart: bool

    def grams(self, side: str, request: Request, default: Sequence[str] = ()) -> Grams:
        """The Grams that a request asks for, under this condition; see `read_grams`."""
        grams = read_grams(self.dump, side, request, default)
        return raw(grams) if self.invert_popart else grams


def raw(grams: Grams) -> Grams:
    """The critic Grams that the loss without PopArt would have given with the same network weights."""
    return replace(grams, values=without_popart(grams.values, grams.beside["popart_sigma"]))


def rounding(dump: Dump) -> float:
    """How far rounding alone may move a cosine of this dump."""
    return float(dump.source.header.layout.gram_tolerance)


def recorded(dump: Dump, key: str, default: Any) -> Any:
    """A value that TOPPO's trainer recorded of its configuration; `default` if it did not record the run."""
    config = dump.attrs.get("config")
    return config.get(key, default) if isinstance(config, Mapping) and "capture" not in dump.attrs else default


def of_trainer(dump: Dump) -> bool:
    """Whether TOPPO's own trainer recorded the run, so that the words of the paper fit it."""
    return recorded(dump, "popart", None) is not None


def has_popart(dump: Dump) -> bool:
    """Whether the run normalised its value targets."""
    return bool(recorded(dump, "popart", "off") != "off" and "popart_sigma" in dump.names)


def has_critic_layernorm(dump: Dump) -> bool:
    """Whether the run's critic had LayerNorm."""
    return bool(recorded(dump, "layernorm", "none") != "none")


def critic_conditions(dumps: Sequence[Dump]) -> list[Condition]:
    """The columns of Figure D.1 that these dumps give: vanilla, +PopArt, +LN, +PopArt+LN, in that order.

    If several columns have the same label, the run's name is added to each.
    """
    found = []
    for dump in dumps:
        ln = "+LN" if has_critic_layernorm(dump) else ""
        if has_popart(dump):
            found.append(Condition(ln or "vanilla", dump, invert_popart=True))
            found.append(Condition(f"+PopArt{ln}", dump, invert_popart=False))
        else:
            found.append(Condition(ln or "vanilla", dump, invert_popart=False))
    return _distinct(sorted(found, key=lambda c: ORDER.index(c.label)))


def conditions_of(dumps: Sequence[Dump], side: str) -> tuple[list[Condition], list[str]]:
    """The columns of a figure that compares runs, and notes on those that are missing.

    On the critic of TOPPO's trainer these are those of Figure D.1. Anywhere else there is one for each dump.
    """
    if side != "critic" or not any(of_trainer(dump) for dump in dumps):
        return plain_conditions(dumps), []
    found = critic_conditions(dumps)
    return found, missing_conditions(found)


def plain_conditions(dumps: Sequence[Dump]) -> list[Condition]:
    """One column for each dump (Figure D.2)."""
    return _distinct([Condition("", dump, invert_popart=False) for dump in dumps])


def _distinct(conditions: list[Condition]) -> list[Condition]:
    labels = [c.label for c in conditions]
    dumps = {c.dump.path: c.dump for c in conditions}
    names = dict(zip(dumps, told_apart(list(dumps.values())), strict=True))
    return [
        replace(c, label=f"{c.label} ({names[c.dump.path]})" if c.label else names[c.dump.path])
        if labels.count(c.label) > 1 or not c.label
        else c
        for c in conditions
    ]


def missing_conditions(conditions: Sequence[Condition]) -> list[str]:
    """A note on the columns of Figure D.1 that none of the given dumps can fill; [] if none is missing."""
    there = {c.label.split(" ")[0] for c in conditions}
    absent = [label for label in ORDER if label not in there]
    mend = "give a run with LayerNorm on the critic and one without, both with PopArt"
    return [f"none of the dumps shows {', '.join(absent)}; to see all columns, {mend}"] * bool(absent)


def open_alike(request: Request) -> list[Dump]:
    """Every dump of a request, opened. All have the same tasks, or all have the tasks that the request chooses.

    Raises:
        UsageError: they differ.
    """
    dumps = request.open_all()
    for dump in dumps[1:]:
        if not request.tasks and dump.tasks != dumps[0].tasks:
            raise UsageError(
                f"{dumps[0].path} and {dump.path} have different tasks; choose common ones with `tasks`, "
                "or draw the dumps one by one"
            )
    return dumps


def gradient_scale(dump: Dump, side: str) -> float:
    """The factor on each g_i of a side before the trainer's combiner: c_v on the critic. 1 if the dump has none."""
    scale = _of_side(dump, "gradient_scale", side)
    return float(scale) if isinstance(scale, (int, float)) else 1.0


def combiner_of(dump: Dump, side: str) -> str | None:
    """The spec of the combiner that trained a side; None if the dump does not say."""
    spec = _of_side(dump, "combiners", side)
    return spec if isinstance(spec, str) else None


def _of_side(dump: Dump, name: str, side: str) -> Any:
    """What an attribute of the run says about a side. Anybody can write attributes, so it may be of any kind."""
    found = dump.attrs.get(name)
    return found.get(side) if isinstance(found, Mapping) else None


def as_combined(dump: Dump, side: str, grams: Grams) -> Grams:
    """The Grams in the units in which the trainer's combiner saw them. On the critic these are Grams of c_v g_i.

    Some combiners have an absolute tolerance, or are not homogeneous. Only in these units do they answer as in
    training.
    """
    return replace(grams, values=scaled(grams.values, gradient_scale(dump, side)))


def default_side(dump: Dump) -> str:
    """The critic of reinforcement learning, where the paper looks. In any other dump, its first side."""
    return "critic" if "critic" in dump.sides and dump.step == ENV_STEPS else dump.sides[0]


def chosen_side(dump: Dump, request: Request) -> tuple[str, list[str]]:
    """The side to look at, and a note that says which one it is where nobody chose it and there are several."""
    if request.side is not None:
        return request.side, []
    side = default_side(dump)
    others = [other for other in dump.sides if other != side]
    said = bool(others) and side != "critic"
    return side, [f"{dump.path}: shows the side {side}; choose {' or '.join(others)} with `side`"] * said


def sides(dump: Dump, request: Request) -> tuple[str, ...]:
    """The side that the request names, or all sides of the dump.

    Raises:
        DumpError: no such side.
    """
    if request.side is None:
        return dump.sides
    dump.parameters(request.side)
    return (request.side,)


def weights_of_step(dump: Dump, side: str, grams: Grams) -> Float[np.ndarray, "N K"] | None:
    """The weights of the step that training took; None if they are not known.

    They are the recorded ones, or 1 for each task where the step is known to be the sum of the losses.
    """
    weights = recorded_weights(grams, side)
    return np.ones(grams.values.shape[:2]) if weights is None and sums_losses(dump) else weights


def in_order(sides: Sequence[str]) -> list[str]:
    """Sides in the order of Figure 2: the critic, where there is one, comes first."""
    return sorted(sides, key=lambda side: side != "critic")


def with_fairgrad(dump: Dump, side: str) -> bool:
    """Whether FairGrad's step is drawn beside the gradients of a side.

    In the paper FairGrad combines the critic's gradients, so Figure 2 (b) shows the actor without it.
    """
    return not (of_trainer(dump) and side == "actor")


def training_weights(dump: Dump, side: str, grams: Grams) -> Float[np.ndarray, "N K"] | None:
    """The weights w on g_i that training used, (N, K): the recorded ones times `gradient_scale`.

    None if the weights were not recorded. If only some tasks were chosen, the weights are still those of training on
    all tasks.
    """
    weights = recorded_weights(grams, side)
    return None if weights is None else weights * gradient_scale(dump, side)


def recorded_weights(grams: Grams, side: str) -> Float[np.ndarray, "N K"] | None:
    """The weights that training recorded, 0 for tasks that are not known; None if it recorded none for each task."""
    weights = of_each_task(grams, f"{side}_weights")
    return weights if weights is None or grams.known is None else np.where(grams.known, weights, 0.0)


def sums_losses(dump: Dump) -> bool:
    """Whether the step of training is known to be the sum of the losses, though no weights were recorded.

    This is so where `toppo.record` recorded the run. It records weights wherever a combiner or weights decide the step.
    """
    return "capture" in dump.attrs


def has_weights(dump: Dump, side: str) -> bool:
    """Whether training recorded one weight for each task of a side."""
    return is_per_task(dump, f"{side}_weights")


def is_per_task(dump: Dump, name: str) -> bool:
    """Whether a number was recorded under a name for each task."""
    per_task = (("snapshot", "task"), ("snapshot", "minibatch", "task"))
    return name in dump.names and dump.source.specs[name].dims in per_task


@dataclass(frozen=True)
class Outcome:
    """How well each task did at each Gram, in the run's own words.

    Attributes:
        name: success, accuracy, episode_return or loss: the column of a table.
        label: of an axis, with the unit.
        values: one number for each Gram and task, (N, K).
    """

    name: str
    label: str
    values: Float[np.ndarray, "N K"]

    @property
    def scale(self) -> Scale:
        """The axis on which the numbers read: a rate from 0 to 1, losses on a log axis, any others as they are."""
        return "rate" if self.name in SUCCESS else "log" if self.name == "loss" else "own"


def outcome_of(dump: Dump, side: str, grams: Grams) -> Outcome | None:
    """How well each task did: success, accuracy, return or loss, the first of these that was recorded for each task."""
    for name in (*SUCCESS, *PER_TASK, f"loss_{side}", "loss"):
        values = of_each_task(grams, name)
        if values is None:
            continue
        short = {"success_ema": "success", f"loss_{side}": "loss"}.get(name, name)
        label = SUCCESS_LABEL if name == "success_ema" else short.replace("_", " ")
        units = dump.source.specs[name].units
        return Outcome(short, f"{label} ({units})" if units not in ("", "1", label) else label, values)
    return None


def of_each_task(grams: Grams, name: str) -> Float[np.ndarray, "N K"] | None:
    """What was recorded under a name with each Gram, one number for each task; None if there is no such thing."""
    found = grams.beside.get(name)
    return found if found is not None and found.shape == grams.values.shape[:2] else None


def run_names(dumps: Sequence[Dump]) -> str:
    """The names of some runs, as a part of a file's name."""
    return several(_apart(dumps))


def told_apart(dumps: Sequence[Dump]) -> list[str]:
    """A name for each run: its own, or its path where several have the same name.

    Raises:
        UsageError: a dump is given twice.
    """
    paths = [dump.path for dump in dumps]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UsageError(f"{twice} is given twice; give each run once")
    return _apart(dumps)


def _apart(dumps: Sequence[Dump]) -> list[str]:
    names = [run_name(dump) for dump in dumps]
    return [dump.path if names.count(name) > 1 else name for name, dump in zip(names, dumps, strict=True)]


def run_name(dump: Dump) -> str:
    """The run's name, as `name_of`."""
    return name_of(dump.path)


def name_of(path: str) -> str:
    """A run's name: that of the directory that holds dump.zarr, or that of the archive without its ending.

    Args:
        path: of a run directory, a dump or an archive on this machine, or a URL.
    """
    whole = path if is_url(path) else (Path.cwd() / local_path(path)).as_posix()  # "." has a name too
    parts = whole.rstrip("/").split("/")
    if parts[-1] == "dump.zarr" and len(parts) > 1:
        return parts[-2]
    return parts[-1].removesuffix(".h5").removesuffix(".zarr")

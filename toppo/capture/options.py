"""The options of `record`, checked before the training begins. Each error is one line that names the option."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

from torch import Tensor, nn

from toppo.capture.errors import CaptureError
from toppo.capture.found import Combiners
from toppo.capture.log import check_names
from toppo.capture.sharing import WHOLE
from toppo.capture.ways import WAYS, WayName
from toppo.combiners import Combiner, make
from toppo.common.errors import bad_option
from toppo.common.names import suggestion
from toppo.dump import DumpError

OnRecord = Callable[[int, dict[str, float]], object]
"""Takes the step and the scalars of a record."""


class Scaler(Protocol):
    """What a recorder needs of `torch.amp.GradScaler`."""

    def scale(self, outputs: Tensor) -> Tensor:
        """A loss, scaled up."""


@dataclass(frozen=True)
class Options:
    """The options of `record`, see there."""

    every: int
    sides: Mapping[str, nn.Module] | None
    slabs: bool
    combiner: Combiners
    scaler: Scaler | None
    accumulate: int
    way: WayName | None
    seed: int
    config: Mapping[str, Any]
    on_record: OnRecord | None

    def to_json(self) -> dict[str, Any]:
        """What the dump keeps of them in the attribute `capture`."""
        return {"every": int(self.every), "accumulate": int(self.accumulate), "scaler": self.scaler is not None}


def check_options(options: Options, model: nn.Module, tasks: Sequence[str]) -> list[str]:
    """The names of the tasks, after every option was found to be usable.

    Args:
        options: what the user gave.
        model: the network.
        tasks: what should be K names.

    Raises:
        UsageError: an option is out of range.
        CaptureError: the model cannot be recorded.
    """
    whole: tuple[tuple[str, Any, int], ...] = (
        ("every", options.every, 1),
        ("accumulate", options.accumulate, 1),
        ("seed", options.seed, 0),
    )
    for name, number, least in whole:
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise bad_option(name, number, f"must be a whole number, at least {least}")
    if options.way not in (None, *WAYS):
        raise bad_option("way", options.way, f"must be one of {', '.join(WAYS)}", WAYS)
    if not isinstance(options.slabs, bool):
        raise bad_option("slabs", options.slabs, "must be True or False", (True, False))
    names = [] if isinstance(tasks, str) else list(tasks)
    if len(names) < 2 or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise bad_option("tasks", tasks, "must be a list of two or more distinct names, one for each loss")
    if options.on_record is not None and not callable(options.on_record):
        raise bad_option("on_record", options.on_record, "must be a function of the step and a dict of numbers")
    if options.scaler is not None and not hasattr(options.scaler, "scale"):
        raise bad_option("scaler", options.scaler, "must be the loop's `torch.amp.GradScaler`, or None")
    _check_model(model)
    sides = [WHOLE]
    if options.sides is not None:
        _check_sides(options.sides, model, names)
        sides = list(options.sides)
    _check_combiner(options.combiner, sides, len(names))
    return names


def plain_config(config: Any) -> dict[str, Any]:
    """A copy of the option `config`, as JSON holds it. {} where it is None.

    Raises:
        UsageError: it is no dict, or JSON cannot hold it.
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise bad_option("config", config, "must be a dict of values that JSON can hold")
    try:
        return dict(json.loads(json.dumps(dict(config), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_option(
            "config", dict(config), f"JSON cannot hold it ({error}); give plain numbers, strings, lists and dicts"
        ) from error


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise CaptureError(f"`model`: a {type(model).__name__}; give a torch module (nn.ModuleList joins several)")
    if any(p.is_meta for p in model.parameters()):
        raise CaptureError(
            "`model`: its parameters are on the meta device and have no values; give them values first, "
            "as with `model.to_empty(device=...)`"
        )


def _check_sides(sides: Any, model: nn.Module, tasks: Sequence[str]) -> None:
    if not isinstance(sides, Mapping) or not sides:
        what = f"a {type(sides).__name__}" if sides else "is empty"
        raise CaptureError(f"`sides`: {what}; give a dict from names to modules of the model, or leave it out")
    own = set(model.parameters())
    for side, module in sides.items():
        if not isinstance(module, nn.Module):
            problem = "give a module of the model; a parameter alone is recorded with the module that has it"
            raise CaptureError(f"`sides`: {side!r} is a {type(module).__name__}; {problem}")
        if own.isdisjoint(module.parameters()):
            raise CaptureError(f"`sides`: {side!r} has no parameter of the model; give a module of the recorded model")
        if not isinstance(side, str):
            raise CaptureError(f"`sides`: {side!r} is no name; give a string")
    try:
        check_names(tasks, list(sides))
    except DumpError as error:
        raise CaptureError(f"`sides`: {error}") from error


def _check_combiner(combiner: Any, sides: Sequence[str], n_tasks: int) -> None:
    """Raise an error if this is no combiner for these sides, so that a wrong spec is told before the first step."""
    for side, one in combiner.items() if isinstance(combiner, Mapping) else [(None, combiner)]:
        if side is not None and side not in sides:
            raise CaptureError(f"`combiner`: there is no side {side!r}; {suggestion(str(side), sides)}")
        if one is None:
            continue
        if not isinstance(one, str | Combiner):
            where = "" if side is None else f"{side!r} has "
            kind = one.__name__ if isinstance(one, type) else f"a {type(one).__name__}"
            raise CaptureError(f"`combiner`: {where}{kind}; give a spec such as 'fairgrad:alpha=1', or a combiner")
        (make(one) if isinstance(one, str) else one).check_use(n_tasks)

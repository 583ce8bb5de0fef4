"""Which commands a dump can feed, and what is missing for the others. The names are those of `docs/howto/names.md`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from toppo.dump import Dump
from toppo_diag.reading.conditions import PER_TASK, SUCCESS, has_weights, is_per_task, sums_losses


@dataclass(frozen=True)
class Feed:
    """What a command can do with a dump.

    Attributes:
        works: whether the command draws something of the dump.
        missing: what it would need to show everything, one phrase each; [] if nothing.
    """

    works: bool
    missing: list[str]


def feeds(dump: Dump) -> dict[str, dict[str, Any]]:
    """What each command that draws from dumps can do with a dump, as values that JSON can hold.

    Returns:
        By command: `works` and `missing`, as in `Feed`.
    """
    return {command: asdict(feed) for command, feed in _feeds(dump).items()}


def _feeds(dump: Dump) -> dict[str, Feed]:
    some = [] if dump.n_snapshots else ["a snapshot"]
    there = bool(dump.n_snapshots)
    weights = _weights(dump)
    known = [] if sums_losses(dump) else weights  # a sum of the losses has no weights to record
    losses = [] if any(is_per_task(dump, name) for name in _losses(dump)) else ["loss of each task (loss)"]
    outcome = [] if any(is_per_task(dump, name) for name in (*SUCCESS, *PER_TASK, *_losses(dump))) else [_outcome()]
    layers = [] if all(map(dump.has_layers, dump.sides)) else ["layers (record with layer_grams, or slabs)"]
    few = dump.n_minibatches < 2 and dump.n_snapshots < 3 and not dump.n_stream
    noise = ["noise (three snapshots, or two minibatches in each)"] * few
    streamed = there or bool(dump.n_stream)
    plain = Feed(there, some)
    return {
        "heatmaps": plain,
        "norms": Feed(streamed, [] if streamed else some),
        "health": plain,
        "contributions": plain,
        "invariance": plain,
        "replay": Feed(there, some + known + losses),
        "conflicts": Feed(streamed, ([] if streamed else some) + layers + noise),
        "trap": Feed(there, some + known + outcome),
        "weights": Feed(there and len(weights) < len(dump.sides), some + weights),
        "scalars": Feed(there, some + known),
        "report": Feed(streamed, ([] if streamed else some) + outcome + layers),
    }


def _losses(dump: Dump) -> list[str]:
    return ["loss", *(f"loss_{side}" for side in dump.sides)]


def _weights(dump: Dump) -> list[str]:
    """The weights that were not recorded, one phrase for each side."""
    return [f"weights of training ({side}_weights)" for side in dump.sides if not has_weights(dump, side)]


def _outcome() -> str:
    return f"how well each task does ({', '.join(SUCCESS[1:])}, {', '.join(PER_TASK)} or loss)"

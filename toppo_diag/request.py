"""What a figure command is asked and what it answers. The command line and the manifest ask with a `Request`; every
command answers with a `Product`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toppo_diag.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
"""One line of a table: column to value."""


@dataclass(frozen=True)
class Request:
    """The options that every figure command takes. At most one of `stage`, `snapshot`, `steps` is given.

    Attributes:
        dumps: run directories, dumps, archives or URLs.
        side: a side of the dump; None leaves it to the command.
        stage: out of early, mid, late.
        snapshot: indices from 0 (negative ones from the end), or ranges "a:b", both ends included.
        steps: environment steps, of which the nearest snapshots are taken, or ranges "a:b".
        tasks: to keep, in this order; () keeps all.
        layer: a parameter ("2.weight") or the common start of several ("2"), whose columns alone count.
        scheduler: see `toppo_diag.schedulers`.
    """

    dumps: tuple[str, ...]
    side: str | None = None
    stage: tuple[str, ...] = ()
    snapshot: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    layer: str | None = None
    scheduler: str = "serial"

    def __post_init__(self) -> None:
        given = [name for name in ("stage", "snapshot", "steps") if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"--{given[0]} and --{given[1]} both choose snapshots; give one of them")

    @property
    def chooses_snapshots(self) -> bool:
        """Whether some of a dump's snapshots were asked for, rather than all."""
        return bool(self.stage or self.snapshot or self.steps)

    def one_dump(self, command: str) -> str:
        """The dump of a command that draws one at a time.

        Raises:
            UsageError: there are more.
        """
        if len(self.dumps) != 1:
            raise UsageError(f"{command} draws one dump at a time, not {len(self.dumps)}; run it once for each")
        return self.dumps[0]


@dataclass(frozen=True)
class Product:
    """What a command made, not yet on disk.

    Attributes:
        name: stem of its files.
        figure: draws it; None for a command without a picture.
        tables: the numbers behind it, by suffix of their CSV file ("" for the main one).
        numbers: the headline, a small table.
        notes: what is missing and why, one line each.
        failures: why a check failed, one line each; exit code 1.
        texts: further files, by what follows the stem in their name ("-2.md").
        measured: columns that differ from run to run (times), which no later check compares.
    """

    name: str
    figure: Callable[[], Figure] | None
    tables: Mapping[str, Sequence[Row]]
    numbers: Sequence[Row]
    notes: Sequence[str] = ()
    failures: Sequence[str] = field(default=())
    measured: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def as_texts(value: object) -> tuple[str, ...]:
    """A list option as texts, whether it came as "a,b", as a list, or as a single number; None gives ()."""
    if value is None:
        return ()
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return tuple(str(item).strip() for item in items if str(item).strip())

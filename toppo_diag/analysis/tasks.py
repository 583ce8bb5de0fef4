"""Names of tasks as users give them: one rule for all commands."""

from __future__ import annotations

from collections.abc import Sequence

from toppo.common.names import suggestion
from toppo_diag.errors import UsageError, bad_option

METAWORLD = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press-topdown-wall",
    "button-press",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-unlock",
    "hand-insert",
    "faucet-open",
    "faucet-close",
    "hammer",
    "handle-press-side",
    "handle-press",
    "handle-pull-side",
    "handle-pull",
    "lever-pull",
    "pick-place-wall",
    "pick-out-of-hole",
    "plate-slide",
    "plate-slide-side",
    "plate-slide-back",
    "plate-slide-back-side",
    "peg-unplug-side",
    "soccer",
    "stick-push",
    "stick-pull",
    "push-wall",
    "push-back",
    "reach-wall",
    "shelf-place",
    "sweep-into",
    "sweep",
)
"""The tasks of MT10, then the other tasks of MT50, without version. The place in this list fixes a task's colour."""

_KNOWN = frozenset(METAWORLD)


def resolve(wanted: Sequence[str], tasks: Sequence[str], where: str) -> list[int]:
    """Indices of the tasks that are wanted, in that order; without a wish, of all.

    A name is that of the recording ("reach-v3"), or the short one that figures print ("reach").

    Args:
        wanted: names.
        tasks: of the recording.
        where: the recording, for messages.

    Raises:
        UsageError: a task that is not there, or one that is named twice.
    """
    found: list[int] = []
    for name in _joined(wanted, tasks) or tasks:
        alike = [i for i, task in enumerate(tasks) if name in (task, short(task))]
        exact = [i for i in alike if tasks[i] == name] or alike
        if not exact:
            known = ", ".join(map(short, tasks)) if len(tasks) <= 10 else suggestion(name, map(short, tasks))
            raise bad_option("tasks", name, f"{where} has no task {name!r}; it has {known}", tasks)
        if len(exact) > 1:
            names = " and ".join(tasks[i] for i in exact)
            raise bad_option("tasks", name, f"{where} has {names}: give the whole name", tasks)
        if wanted and exact[0] in found:
            raise bad_option("tasks", ",".join(wanted), f"names {tasks[exact[0]]} twice; name each task once", tasks)
        found.append(exact[0])
    return found


def _joined(wanted: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The names that are wanted. Parts that a comma in a task's name has cut are put together again.

    >>> _joined(["stack", "red", "blue"], ["red, blue", "stack"])
    ['stack', 'red, blue']
    """
    with_comma = {tuple(part.strip() for part in task.split(",")): task for task in tasks if "," in task}
    names: list[str] = []
    at = 0
    while at < len(wanted):
        parts = next((p for p in with_comma if tuple(wanted[at : at + len(p)]) == p), None)
        names.append(wanted[at] if parts is None else with_comma[parts])
        at += len(parts or (0,))
    return names


def shared(of_runs: Sequence[Sequence[str]]) -> list[str]:
    """The tasks that all runs have, in the order of the first run.

    Raises:
        UsageError: the runs share no task.
    """
    common = [task for task in of_runs[0] if all(task in tasks for tasks in of_runs)]
    if not common:
        raise UsageError("the runs share no task, so they cannot be compared; make a report of each")
    return common


def short(task: str) -> str:
    """Name of a task in figures: that of a Meta-World task without its version, any other name as it is."""
    name = task.removesuffix("-v3").removesuffix("-v2")
    return name if name in _KNOWN else task

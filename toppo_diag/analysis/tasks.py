"""Names of tasks as users give them: one rule for all commands."""

from __future__ import annotations

from collections.abc import Sequence

from toppo.common.names import suggestion
from toppo_diag.errors import UsageError, bad_option


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
    for name in wanted or tasks:
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
    """Name of a task without Meta-World's version suffix, as figures print it."""
    return task.removesuffix("-v3").removesuffix("-v2")

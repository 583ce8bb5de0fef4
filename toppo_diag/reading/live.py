"""The present state of a run: how far it is, how fast, and the newest numbers of each task."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toppo.combiners.geometry import gradient_norms, mean_abs_cosine, spread
from toppo.dump import Dump, DumpError, DumpNotFoundError, open_dump, run_logs
from toppo.dump.files import is_url, local_path
from toppo_diag.analysis.presence import of_pairs, shares_of_step
from toppo_diag.analysis.typical import typical, typical_of_each
from toppo_diag.reading.conditions import SUCCESS, default_side, has_weights, recorded, run_name
from toppo_diag.reading.dumps import known_block
from toppo_diag.request import Source

State = Literal["complete", "running", "interrupted", "running or interrupted"]
_DONE = ("success", "accuracy", "return", "loss")
"""How well a task does: these columns come first."""
_LATEST = 5
"""Collects over which the speed is measured."""


@dataclass(frozen=True)
class View:
    """What a run has recorded so far.

    Attributes:
        run: the run's name.
        steps: at the last recorded collect (rollout phase) or snapshot, in the run's own unit; None before the first.
        planned_steps: steps of the whole run; None if they were not recorded.
        snapshots: number of committed and of planned snapshots (None if unknown); None for a run that records no
            gradients.
        complete: whether the run has ended.
        state: complete; running or interrupted; both, where it cannot be told, as at a URL.
        sides: by side, medians of "spread" and "mean_abs_cosine" over the Grams of the last collect, or without a Gram
            stream of the last snapshot, with their ranges ("spread_low" and so on). A side where no two tasks have a
            gradient is left out.
        tasks: success, accuracy, return and loss, norm on each side and share of the direction of the first side, by
            task; only what was recorded. Norms and shares are medians like those of the sides.
        mean_success: of the last collect, from the run's log; None without a log.
        steps_per_second: over the last collects, None if unknown.
        seconds_left: at this speed, None if unknown.
    """

    run: str
    steps: int | None
    planned_steps: int | None
    snapshots: tuple[int, int | None] | None
    complete: bool
    state: State
    sides: dict[str, dict[str, float]]
    tasks: dict[str, dict[str, float]]
    mean_success: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None

    def summary(self) -> dict[str, Any]:
        """The view as values that JSON can hold."""
        return {**vars(self), "snapshots": None if self.snapshots is None else list(self.snapshots)}


@dataclass(frozen=True)
class _Log:
    """What the run's own files say: the last line of progress.jsonl, its budget, and the seconds of its last collects.

    Attributes:
        last: of progress.jsonl; {} before the first collect.
        planned: environment steps of the whole run.
        name: of the run's directory.
        rate: environment steps per second; None if unknown.
    """

    last: dict[str, Any]
    planned: int | None
    name: str
    rate: float | None


def look(source: Source) -> View:
    """A view of what a run has recorded so far. Without gradients it shows what the run's logs say.

    Raises:
        DumpError: neither a dump nor a run there.
    """
    log = _log(source)
    try:
        dump = open_dump(source)  # anew each time: a live run goes on
    except DumpError as error:
        if log is None:
            raise
        if _dump_is_there(source):
            raise error from None
        return _of_logs(log, source)
    tasks: dict[str, dict[str, float]] = {task: {} for task in dump.tasks}
    steps = _last_steps(dump)
    if dump.n_snapshots:
        done = next((name for name in SUCCESS if _per_task(dump, name) is not None), None)
        for name in filter(None, (done, "episode_return", "loss")):
            label = {"success_ema": "success", "episode_return": "return"}.get(name, name)
            values = _per_task(dump, name)
            if values is not None:
                for task, value in zip(dump.tasks, values, strict=True):
                    tasks[task][label] = float(value)
    sides = {}
    for side in dump.sides:
        grams = _last_grams(dump, side)
        if grams is None:
            continue
        filled, known = known_block(grams)
        norms = gradient_norms(filled)
        apart, cosine = (typical(of_pairs(measure, filled)) for measure in (spread(norms), mean_abs_cosine(filled)))
        if apart.n:
            sides[side] = {**apart.columns("spread"), **cosine.columns("mean_abs_cosine")}
        for task, norm, there in zip(dump.tasks, norms.T, known.T, strict=True):
            if there.any():
                tasks[task][f"{side} norm"] = typical(norm[there]).median
    side = default_side(dump)
    if dump.n_snapshots and (weights := _last_weights(dump, side)) is not None:
        filled, known = known_block(_last(dump, f"{side}_gram"))
        shares = shares_of_step(filled, weights, known)
        for task, share in zip(dump.tasks, shares.T, strict=True):
            if (of_task := typical(share)).n:
                tasks[task][f"{side} share"] = of_task.median
    planned = recorded(dump, "env_steps", None)
    planned = int(planned) if isinstance(planned, (int, float)) else None
    if log is not None and log.last:
        steps = max(steps or 0, log.last["env_steps"])
        for task, values in log.last["tasks"].items():
            if task in tasks and isinstance(now := values.get("success_ema", values.get("success")), (int, float)):
                tasks[task]["success"] = float(now)
    complete = dump.complete
    return View(
        run=run_name(dump),
        steps=steps,
        planned_steps=planned,
        snapshots=(dump.n_snapshots, dump.n_planned),
        complete=complete,
        state="complete" if complete else _state(source),
        sides=sides,
        tasks={task: dict(sorted(values.items(), key=lambda v: v[0] not in _DONE)) for task, values in tasks.items()},
        **({} if log is None else _pace(log, steps, planned, complete)),
    )


def _of_logs(log: _Log, source: Source) -> View:
    steps = log.last.get("env_steps")
    complete = bool(log.planned and steps and steps >= log.planned)
    return View(
        run=log.name,
        steps=steps,
        planned_steps=log.planned,
        snapshots=None,
        complete=complete,
        state="complete" if complete else _state(source),
        sides={},
        tasks={
            task: {
                label: float(values[key])
                for label, key in (("success", "success_ema"), ("return", "episode_return"))
                if isinstance(values.get(key), (int, float))
            }
            for task, values in log.last.get("tasks", {}).items()
        },
        **_pace(log, steps, log.planned, complete),
    )


def _pace(log: _Log, steps: int | None, planned: int | None, complete: bool) -> dict[str, Any]:
    left = (planned - steps) / log.rate if planned and steps and log.rate and not complete else None
    mean = log.last.get("mean_success")
    return {
        "mean_success": float(mean) if isinstance(mean, (int, float)) else None,
        "steps_per_second": log.rate,
        "seconds_left": left,
    }


def _log(source: Source) -> _Log | None:
    """The logs of the run at a path; None where there is no run directory."""
    path = source.path if isinstance(source, Dump) else source
    try:
        logs = run_logs(path)
    except DumpNotFoundError:
        return None
    if "config.toml" not in logs:
        return None
    try:
        config = tomllib.loads(logs["config.toml"])
    except (ValueError, RecursionError):
        config = {}
    planned = config.get("env_steps")
    directory = _directory(path)
    lines = logs.get("progress.jsonl", "").split("\n")[:-1]
    return _Log(
        last=_line(lines[-1]) if lines else {},
        planned=planned if isinstance(planned, int) else None,
        name=str(path) if directory is None else directory.resolve().name,
        rate=None if directory is None else _rate(directory / "timings.jsonl", config.get("env_steps_per_collect")),
    )


def _line(text: str) -> dict[str, Any]:
    """A line of progress.jsonl; {} for one that is damaged, which other commands report."""
    try:
        line = json.loads(text)
        sound = isinstance(line["env_steps"], int) and all(isinstance(v, dict) for v in line["tasks"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return dict(line) if sound else {}


def _rate(timings: Path, steps: Any) -> float | None:
    """Environment steps per second over the last collects."""
    if not timings.is_file():  # a pipe would be waited for
        return None
    try:
        lines = [json.loads(line) for line in timings.read_text(encoding="utf-8").split("\n")[:-1][-_LATEST:]]
        spent = [sum(v for k, v in line.items() if isinstance(v, float)) for line in lines]
        return len(spent) * int(steps) / sum(spent) if spent and sum(spent) > 0 else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _directory(path: Any) -> Path | None:
    """The run's directory on this machine; None for a URL or an archive."""
    if is_url(path):
        return None
    place = local_path(path)
    place = place.parent if place.name == "dump.zarr" else place
    return place if place.is_dir() else None


def _dump_is_there(source: Source) -> bool:
    directory = None if isinstance(source, Dump) else _directory(source)
    return directory is None or (directory / "dump.zarr" / "zarr.json").exists()


def _state(source: Source) -> State:
    """Whether a process has the run's lock, or that of its dump.

    A file without a process behind it is what a crash leaves. Only then is the lock taken, shared and for a moment.
    """
    directory = _directory(source.path if isinstance(source, Dump) else source)
    if directory is None:
        return "running or interrupted"
    locks = [directory / ".lock", directory / ".dump.zarr.lock"]
    if directory.suffix == ".zarr":
        locks.append(directory.with_name(f".{directory.name}.lock"))
    try:
        import fcntl
    except ImportError:  # Windows
        return "running or interrupted"
    for file in locks:
        try:
            with file.open("rb") as open_file:
                fcntl.flock(open_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return "running"
        except OSError:  # a file system without locks, or somebody else's file
            return "running or interrupted"
    return "interrupted"


def _per_task(dump: Dump, name: str) -> np.ndarray | None:
    """One number for each task at the last snapshot: the median over its minibatches where it has those."""
    if name not in dump.names:
        return None
    dims = dump.source.specs[name].dims
    if dims == ("snapshot", "task"):
        return _last(dump, name)
    if dims == ("snapshot", "minibatch", "task"):
        return typical_of_each(_last(dump, name))
    return None


def _last_weights(dump: Dump, side: str) -> np.ndarray | None:
    """The weights in the minibatches of the last snapshot, (M, K); None where none were recorded for each task."""
    if not has_weights(dump, side):
        return None
    values = _last(dump, f"{side}_weights")
    return np.broadcast_to(values, (dump.n_minibatches, len(dump.tasks)))


def _last(dump: Dump, name: str) -> np.ndarray:
    """An array at the last snapshot."""
    spec = dump.source.specs[name]
    return dump.source.read(name, (dump.n_snapshots - 1, *(slice(None),) * (len(spec.dims) - 1)))


def _last_grams(dump: Dump, side: str) -> np.ndarray | None:
    """The newest Grams, (n, K, K): of the last collect of the Gram stream, or, without one, of the last snapshot."""
    if dump.n_stream:
        return np.asarray(dump.source.read(f"{side}_gram_stream", (dump.n_stream - 1, *(slice(None),) * 3)))
    return np.asarray(_last(dump, f"{side}_gram")) if dump.n_snapshots else None


def _last_steps(dump: Dump) -> int | None:
    if dump.n_stream:
        return int(dump.values(f"stream_{dump.step.name}")[-1])
    return int(dump.steps[-1]) if dump.n_snapshots else None

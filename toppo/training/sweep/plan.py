"""The plan of a sweep: its TOML file of rungs, benchmarks and seeds, its runs, and how far each run is on disk.

A rung is one variant of the method. This is the paper's word. A sweep file looks like this:

    name = "v2"
    benchmarks = ["MT10"]
    seeds = [0, 1, 2]
    repeats = 8                # any field of `TrainConfig`, for all rungs

    [rungs.toppo]
    preset = "toppo"           # a preset, fields of its own, or both
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from toppo.common.errors import UsageError, quoted, shown, unknown
from toppo.common.names import RUNS
from toppo.training.config import FIELDS, PRESETS, TrainConfig, read_toml, resolve
from toppo.training.run.directory import Run
from toppo.training.run.schedule import Schedule, plan

HOW = ("device", "workers")
"""Fields that say how a run is computed, not what it computes. An existing run keeps its own values of these fields."""

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep file. `common` holds for every rung. The fields of a rung hold for this rung alone."""

    path: Path
    name: str
    benchmarks: tuple[str, ...]
    seeds: tuple[int, ...]
    common: Mapping[str, Any]
    rungs: Mapping[str, Mapping[str, Any]]


class State(Enum):
    """How far a run is on disk."""

    NEW = "new"
    CUT_OFF = "cut off"
    FINISHED = "finished"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its directory under dumps/, its rung and its plan."""

    name: str
    rung: str
    schedule: Schedule

    @property
    def config(self) -> TrainConfig:
        """Configuration of the run."""
        return self.schedule.config

    @property
    def path(self) -> Path:
        """dumps/<name>, relative to the directory where the sweep is started."""
        return RUNS / self.name

    def as_dict(self) -> dict[str, Any]:
        """Directory, rung and configuration as plain values."""
        return {"run": str(self.path), "rung": self.rung, "config": self.config.to_dict()}


def read_sweep(path: Path) -> Sweep:
    """The content of a sweep file.

    Raises:
        UsageError: the file is missing or is not TOML, has an unknown key, or has nothing to run.
    """
    values = read_toml(path)
    for key in values:
        if key in ("seed", "benchmark"):
            raise UsageError(f"{path}: a sweep sets {key} itself; give {key}s = [...]")
        if key not in ("name", "benchmarks", "seeds", "rungs", *FIELDS):
            raise UsageError(f"{path}: {unknown('key', key, ['name', 'benchmarks', 'seeds', 'rungs', *FIELDS])}")
    name = values.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f'{path}: give name = "..." with letters, digits, ".", "_" and "-", not {quoted(name)}')
    benchmarks = _distinct(path, "benchmarks", values.pop("benchmarks", []), str, '["MT10"]')
    seeds = _distinct(path, "seeds", values.pop("seeds", []), int, "[0, 1, 2]")
    rungs = values.pop("rungs", {})
    if not isinstance(rungs, dict) or not rungs or not all(isinstance(rung, dict) for rung in rungs.values()):
        raise UsageError(f"{path}: the sweep has no rungs; give [rungs.NAME] tables, each with a preset or settings")
    for rung, settings in rungs.items():
        _check_rung(f"{path}: [rungs.{rung}]", rung, settings, values)
    return Sweep(path, name, benchmarks, seeds, values, rungs)


def _distinct(path: Path, key: str, items: Any, kind: type, example: str) -> tuple[Any, ...]:
    if not isinstance(items, list) or not items or not all(type(item) is kind for item in items):
        raise UsageError(f"{path}: the sweep has no {key} that can be run; give {key} = {example}")
    twice = [item for n, item in enumerate(items) if item in items[:n]]
    if twice:
        raise UsageError(f"{path}: {key} names {quoted(twice[0])} twice")
    return tuple(items)


def _check_rung(label: str, rung: str, settings: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    if not _NAME.fullmatch(rung):
        raise UsageError(f'{label}: a rung\'s name is made of letters, digits, ".", "_" and "-"')
    for key in settings:
        if key in ("seed", "benchmark"):
            raise UsageError(f"{label}: a sweep sets {key} itself; give {key}s = [...] above the rungs")
        if key not in ("preset", *FIELDS):
            raise UsageError(f"{label}: {unknown('key', key, ['preset', *FIELDS])}")
    preset = settings.get("preset")
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise UsageError(f"{label}: {unknown('preset', shown(preset), PRESETS)}")
    if preset is not None and (both := sorted(PRESETS[preset].keys() & common.keys() - settings.keys())):
        raise UsageError(f"{label}: both preset {preset!r} and the sweep set {both[0]}; set it in the rung instead")


def expand(sweep: Sweep, cores: int) -> tuple[PlannedRun, ...]:
    """The runs of a sweep. All rungs of the first seed come first, then all rungs of the next seed.

    So a sweep that is cut short leaves all rungs for fewer seeds.

    Args:
        sweep: what to run.
        cores: number of cores for each run. It becomes `workers` if the sweep does not set this field, with at most one
            worker per environment.

    Raises:
        UsageError: settings are wrong, or two runs have the same name.
    """
    runs: dict[str, PlannedRun] = {}
    for seed in sweep.seeds:
        for benchmark in sweep.benchmarks:
            for rung, settings in sweep.rungs.items():
                try:
                    run = _planned(sweep, seed, benchmark, rung, settings, cores)
                except UsageError as error:
                    raise UsageError(f"{sweep.path}: [rungs.{rung}] on {benchmark}: {error}") from None
                if run.name in runs:
                    raise UsageError(f"{sweep.path}: two runs would be named {run.name}; rename a rung")
                runs[run.name] = run
    return tuple(runs.values())


def _planned(sweep: Sweep, seed: int, benchmark: str, rung: str, settings: Mapping[str, Any], cores: int) -> PlannedRun:
    given = {**sweep.common, **settings, "seed": seed, "benchmark": benchmark}
    config = resolve(given, preset=given.pop("preset", None))
    if "workers" not in given:
        config = dataclasses.replace(config, workers=min(cores, config.n_tasks * config.envs_per_task))
    return PlannedRun(f"{sweep.name}-{rung}-{config.benchmark.replace(',', '_')}-s{seed}", rung, plan(config))


def state(run: PlannedRun, root: Path) -> State:
    """How far a run is on disk.

    Args:
        run: a run of a sweep.
        root: the directory that holds dumps/.

    Raises:
        UsageError: the directory holds another run, or no run.
    """
    found = Run(root / run.path)
    if not found.path.exists():
        return State.NEW
    if not found.config_file.exists():
        raise UsageError(f"{run.path} exists and holds no run")
    existing, planned = found.config.to_dict(), run.config.to_dict()
    differ = [
        f"{key} = {existing[key]!r}, sweep {planned[key]!r}"
        for key in planned
        if key not in HOW and existing[key] != planned[key]
    ]
    if differ:
        raise UsageError(f"{run.path} exists with another configuration ({'; '.join(differ)})")
    last = run.schedule.collects
    evaluated = any(line["collect"] == last for line in found.read(found.evaluation_log))
    # A run stays finished if its dump was moved away afterwards.
    complete = not found.dump_store.exists() or found.dump.complete
    return State.FINISHED if evaluated and complete else State.CUT_OFF


def states(runs: Sequence[PlannedRun], root: Path) -> dict[str, State]:
    """How far every run of a sweep is, by its name.

    Raises:
        UsageError: directories hold other runs. The message names the first, and the number of the others.
    """
    found: dict[str, State] = {}
    refused: list[UsageError] = []
    for run in runs:
        try:
            found[run.name] = state(run, root)
        except UsageError as error:
            refused.append(error)
    if refused:
        more = f"; {len(refused) - 1} more are in the way" if len(refused) > 1 else ""
        raise UsageError(f"{refused[0]}{more}: give the sweep another name, or move the old runs away")
    return found

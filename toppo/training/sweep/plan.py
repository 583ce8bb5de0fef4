"""A sweep: rungs x benchmarks x seeds in one TOML file, the runs that it stands for, and how far each of them is.

name = "v2"
benchmarks = ["MT10"]
seeds = [0, 1, 2]
repeats = 8                # any key of `TrainConfig`, for all rungs

[rungs.toppo]
preset = "toppo"           # a preset, keys of its own, or both
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from toppo.common.errors import UsageError, unknown
from toppo.training.config import FIELDS, PRESETS, TrainConfig, read_toml, resolve
from toppo.training.run.directory import ROOT, RunDirectory
from toppo.training.run.schedule import Schedule, plan

HOW = ("device", "workers")
"""Keys that say how a run is computed, not what: an existing run keeps its own, which may differ from the sweep's."""

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file says it: `common` holds for every rung, a rung's own keys for it alone."""

    path: Path
    name: str
    benchmarks: tuple[str, ...]
    seeds: tuple[int, ...]
    common: Mapping[str, Any]
    rungs: Mapping[str, Mapping[str, Any]]


class State(Enum):
    """How far a run is that may already be on disk."""

    NEW = "new"
    CUT_OFF = "cut off"
    FINISHED = "finished"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its directory under dumps/ and its configuration."""

    name: str
    rung: str
    config: TrainConfig

    @property
    def path(self) -> Path:
        """dumps/<name>, relative to where the sweep was started."""
        return ROOT / self.name

    @property
    def schedule(self) -> Schedule:
        """Its plan; `expand` has checked that there is one."""
        return plan(self.config)


def read_sweep(path: Path) -> Sweep:
    """A sweep from its file.

    Raises:
        UsageError: no such file, no TOML, an unknown key, nothing to run.
    """
    values = read_toml(path)
    for key in values:
        if key in ("seed", "benchmark"):
            raise UsageError(f"{path}: {key} is the sweep's own to set; give {key}s = [...]")
        if key not in ("name", "benchmarks", "seeds", "rungs", *FIELDS):
            raise UsageError(f"{path}: {unknown('key', key, ['name', 'benchmarks', 'seeds', 'rungs', *FIELDS])}")
    name = values.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f'{path}: give name = "...", of letters, digits, ".", "_" and "-"; it is {name!r}')
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
        raise UsageError(f"{path}: {key} names {twice[0]!r} twice")
    return tuple(items)


def _check_rung(label: str, rung: str, settings: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    if not _NAME.fullmatch(rung):
        raise UsageError(f'{label}: a rung\'s name is made of letters, digits, ".", "_" and "-"')
    for key in settings:
        if key in ("seed", "benchmark"):
            raise UsageError(f"{label}: {key} is the sweep's own to set; give {key}s = [...] above the rungs")
        if key not in ("preset", *FIELDS):
            raise UsageError(f"{label}: {unknown('key', key, ['preset', *FIELDS])}")
    preset = settings.get("preset")
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"{label}: {unknown('preset', str(preset), PRESETS)}")
    if preset is not None and (both := sorted(PRESETS[preset].keys() & common.keys() - settings.keys())):
        raise UsageError(f"{label}: preset {preset!r} sets {both[0]}, and so does the sweep; say it in the rung alone")


def expand(sweep: Sweep, cores: int) -> tuple[PlannedRun, ...]:
    """The runs of a sweep. Seeds come outermost, so that what is done is at any time a whole ladder of fewer seeds.

    Args:
        sweep: what to run.
        cores: for one run; where the sweep does not set `workers`, a run gets so many, at most one an environment.

    Raises:
        UsageError: settings that make no run, or two runs of one name.
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
    plan(config)  # budgets that fit together, or a UsageError
    return PlannedRun(f"{sweep.name}-{rung}-{config.benchmark.replace(',', '_')}-s{seed}", rung, config)


def state(run: PlannedRun, root: Path) -> State:
    """How far a run is on disk.

    Args:
        run: of a sweep.
        root: the directory that holds dumps/.

    Raises:
        UsageError: what is there is another run, or none.
    """
    path = root / run.path
    if not path.exists():
        return State.NEW
    if not (path / "config.toml").exists():
        raise UsageError(f"{run.path} exists and holds no run")
    directory, config = RunDirectory.open(path)
    theirs, ours = config.to_dict(), run.config.to_dict()
    differ = [f"{k} = {theirs[k]!r}, sweep {ours[k]!r}" for k in ours if k not in HOW and theirs[k] != ours[k]]
    if differ:
        raise UsageError(f"{run.path} exists with another configuration ({'; '.join(differ)})")
    last = run.schedule.collects
    evaluated = any(line["collect"] == last for line in directory.read(directory.evaluation))
    return State.FINISHED if evaluated and _dump_complete(directory) else State.CUT_OFF


def _dump_complete(directory: RunDirectory) -> bool:
    """Whether a dump lacks nothing; one that was moved away or deleted after the run does not lack anything."""
    from toppo.dump import open_dump  # zarr: too slow for --help

    return not directory.dump.exists() or open_dump(str(directory.dump)).complete


def states(runs: Sequence[PlannedRun], root: Path) -> dict[str, State]:
    """How far every run of a sweep is, by name.

    Raises:
        UsageError: naming the first run that is another one, and how many more there are.
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
        raise UsageError(f"{refused[0]}{more}: give the sweep another name, or move what is there away")
    return found

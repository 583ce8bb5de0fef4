"""Run a sweep, or list its runs: the functions for `import toppo` and for the command line.

A rung of a sweep is one variant of the method.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toppo.common.cluster import check_cluster
from toppo.common.errors import ToppoError, UsageError
from toppo.training.errors import Interrupted
from toppo.training.run.progress import rough
from toppo.training.run.start import require_training
from toppo.training.sweep.jobs import Outcome, cores_of_a_job, run_all, skipped
from toppo.training.sweep.plan import PlannedRun, State, expand, read_sweep, states

if TYPE_CHECKING:
    import pandas as pd

    from toppo.training.config import TrainConfig
    from toppo.training.run.estimate import Estimate


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, and how far each of them is on disk."""

    file: Path
    runs: tuple[PlannedRun, ...]
    states: dict[str, State]
    """State of each run, by the name of the run."""
    jobs: int = 1
    """Runs at a time."""

    def costs(self) -> dict[str, Estimate]:
        """What each run that is not finished would take, by its name. Measured once for runs that differ in their seed.

        Raises:
            ToppoError: this machine has not enough memory to measure.
        """
        from toppo.training.run.start import estimate

        measured: dict[TrainConfig, Estimate] = {}
        found = {}
        for run in self.runs:
            if self.states[run.name] is not State.FINISHED:
                key = dataclasses.replace(run.config, seed=0)
                measured[key] = measured.get(key) or estimate(run.config)
                found[run.name] = measured[key]
        return found

    def state_and_cost(self, run: PlannedRun, costs: Mapping[str, Estimate]) -> dict[str, Any]:
        """State, hours and bytes on disk of a run; a finished run takes nothing more."""
        cost = costs.get(run.name)
        return {
            "state": self.states[run.name].value,
            "hours": None if cost is None else cost.hours_between,
            "disk_bytes": None if cost is None else cost.disk_bytes,
        }

    def total(self, costs: Mapping[str, Estimate]) -> str:
        """One line about all runs that are not finished."""
        least, most = (3600 * sum(cost.hours_between[i] for cost in costs.values()) / self.jobs for i in (0, 1))
        disk = sum(cost.disk_bytes for cost in costs.values()) / 1e9
        return (
            f"{len(costs)} runs to train, {self.jobs} at a time: about {rough(least)} to {rough(most)} on this "
            f"machine, and {disk:.2f} GB of disk"
        )


@dataclass(frozen=True)
class SweepResult:
    """The outcome of each run of a sweep, in the order of the sweep. It can be used like a list of outcomes."""

    file: Path
    outcomes: tuple[Outcome, ...]
    signal_number: int | None
    """The signal that stopped the sweep; None if the sweep went to its end."""

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def table(self) -> pd.DataFrame:
        """One row per run: run, status, note, env_steps, mean_success, seconds. See `Outcome`."""
        import pandas as pd

        return pd.DataFrame(list(self.outcomes))

    def require_finished(self) -> None:
        """Check that every run is finished.

        Raises:
            Interrupted: a signal stopped the sweep.
            ToppoError: a run failed. The message names the first failed run.
        """
        if self.signal_number is not None:
            name = signal.Signals(self.signal_number).name
            raise Interrupted(f"stopped by {name}; go on with the same command", self.signal_number)
        failed = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        if failed:
            raise ToppoError(
                f"{len(failed)} of {len(self.outcomes)} runs failed, the first is {failed[0].run} ({failed[0].note}); "
                "the same command goes on with them"
            )


def plan_sweep(file: str | os.PathLike[str], *, jobs: int | None = None) -> SweepPlan:
    """The runs of a sweep, and how far each of them is. Nothing is started.

    Args:
        file: TOML file of rungs, benchmarks and seeds.
        jobs: runs at a time on this machine, which share its cores; 1 by default.

    Raises:
        UsageError: the file is wrong, or a directory of another run is in the way.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"`jobs={jobs}`: must be at least 1")
    runs = expand(read_sweep(Path(file)), cores_of_a_job(jobs or 1))
    require_training()
    from toppo.training.envs.metaworld import task_names

    for benchmark in dict.fromkeys(run.config.benchmark for run in runs):
        task_names(benchmark)
    return SweepPlan(Path(file), runs, states(runs, Path.cwd()), jobs or 1)


def sweep(
    file: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: bool | Console = True,
) -> SweepResult:
    """Train every rung of a sweep on every benchmark with every seed.

    Finished runs are skipped, and runs that were cut off go on. One failed run does not stop the others.

    Args:
        file: TOML file of rungs, benchmarks and seeds.
        jobs: runs at a time on this machine, which share its cores; 1 by default.
        scheduler: address ("tcp://host:port") or scheduler file of a dask cluster, in place of `jobs`. Each thread of
            its workers trains one run. All machines must see the current directory.
        progress: True shows the progress on the standard output, False shows nothing. A rich console shows it there.

    Returns:
        The outcomes. Their `require_finished` raises if a run failed.

    Raises:
        UsageError: the file or an option is wrong, or a directory of another run is in the way.
        ToppoError: the scheduler does not answer.
    """
    if jobs is not None and scheduler is not None:
        raise UsageError("`jobs` and `scheduler` both say where runs go; give one of them")
    if scheduler is not None:
        check_cluster(scheduler)
    plan = plan_sweep(file, jobs=jobs)
    from toppo.training.sweep.display import SweepDisplay

    outcomes = {run.name: skipped(run) for run in plan.runs if plan.states[run.name] is State.FINISHED}
    left = [run for run in plan.runs if run.name not in outcomes]
    names = {str(run.path): run.name for run in left}
    console = progress if isinstance(progress, Console) else Console(quiet=not progress)
    with SweepDisplay(left, console) as display:

        def done(outcome: Outcome) -> None:
            outcomes[names[outcome.run]] = outcome
            display.done(outcome)

        signal_number = run_all(left, jobs or 1, scheduler, done, display.tick)
    return SweepResult(plan.file, tuple(outcomes[run.name] for run in plan.runs), signal_number)

"""Train, resume or evaluate a run: the functions for `import toppo`, for the command line and for sweeps."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toppo.common.errors import ToppoError, UsageError, bad_option
from toppo.common.names import RUNS
from toppo.common.terminal import printable
from toppo.training.config import TrainConfig, from_dict, resolve
from toppo.training.envs.sizes import N_GOALS
from toppo.training.errors import Interrupted, WorkerDied
from toppo.training.run.directory import Run, new_path
from toppo.training.run.resources import resources_named
from toppo.training.run.schedule import Schedule, plan

if TYPE_CHECKING:
    import pandas as pd

    from toppo.training.learner.update import Learner
    from toppo.training.run.estimate import Estimate

SHORT_RUN = 200_000
"""Environment steps of a run that takes minutes: before a longer one, `train` says what it will take."""
NOT_FOR_META_WORLD = (3, 14)
"""The first Python that Meta-World refuses."""
_PLAIN: Any = {"highlight": False, "markup": False, "soft_wrap": True}
"""How a line is printed whose text is not ours alone."""


def train(
    config: TrainConfig | str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    preset: str | None = None,
    progress: bool | Console = True,
    **options: Any,
) -> Run:
    """A new run in dumps/<name>, trained to its end.

    Ctrl-C and SIGTERM stop the run with `Interrupted`. `resume` then goes on with the run.

    Args:
        config: a complete configuration, or a TOML file of options. If it is None, the paper's values are used.
        name: directory under dumps/; by default the next free runN.
        preset: a variant of the method: vanilla, ln, ln-popart, ln-fg, ln-popart-fg or toppo.
        progress: True shows the progress on the standard output, False shows nothing. A rich console shows it there.
        **options: fields of `TrainConfig`. They win over `config` and `preset`.

    Raises:
        UsageError: an option is wrong, or a run of this name exists.
        ToppoError: the run cannot go on. Its last checkpoint is intact.

    Example:
        ``run = toppo.train(preset="toppo", benchmark=["reach-v3", "push-v3"], dump_every=5)``
    """
    new_path(name)
    schedule, learner = _prepared(_configured(config, preset, options))
    from toppo.training.run import trainer

    disk_bytes = trainer.planned_dump_bytes(schedule, learner)
    trainer.require_disk(RUNS, disk_bytes)
    console = _console(progress)
    if schedule.config.env_steps > SHORT_RUN and not console.quiet:
        from toppo.training.run.estimate import measure

        with resources_named():  # on a learner of its own: measuring changes it
            cost = measure(schedule, trainer.build_learner(schedule.config, learner.tasks), disk_bytes)
        console.print(cost.announcement(), **_PLAIN)
    run = Run.create(name, schedule.config)
    return _train_to_end(run, schedule, learner, console)


def resume(run: str | os.PathLike[str], *, device: str | None = None, progress: bool | Console = True) -> Run:
    """The run, trained from its last checkpoint to its end. A finished run is checked and given back at once.

    The result is the same, bit for bit, as that of a run that never stopped.

    Args:
        run: a run, or its directory.
        device: train on another device than the run started on. Its rounding then differs.
        progress: see `train`.

    Raises:
        UsageError: there is no run at this path.
        ToppoError: the run cannot go on. Its last checkpoint is intact.
    """
    run = Run(run)
    if _is_finished(run):
        _console(progress).print(f"{printable(str(run.path))} is finished: nothing is left to train", **_PLAIN)
        return run
    run, schedule, learner = _opened(run, device)
    return _train_to_end(run, schedule, learner, _console(progress))


def _is_finished(run: Run) -> bool:
    """Whether a run is trained to its end, with everything in its place.

    Raises:
        UsageError: there is no run at this path.
        ToppoError: the run is finished, but its files contradict each other.
    """
    from toppo.training.run import checkpoint as checkpoints

    collects = plan(run.config).collects
    if not (run.dump_store.exists() and run.checkpoints.is_dir() and run.dump.complete):
        return False
    run.require_same_config_as_dump(run.config)
    stored = checkpoints.load_latest(run.checkpoints, lambda note: None)
    if stored is None or stored.collect != collects:
        return False
    run.require_same_config(run.config, stored.config)
    run.require_logs(stored.collect, stored.logs)
    return any(line["collect"] == collects for line in run.read(run.evaluation_log))


def evaluate(
    run: str | os.PathLike[str],
    *,
    episodes: int = N_GOALS,
    device: str | None = None,
    progress: bool | Console = True,
) -> pd.DataFrame:
    """Success rate and mean return of every task under the run's newest checkpoint (the evaluation of Section B.1).

    Every episode has another goal of the task, and is played with the mean action.

    Args:
        run: a run, or its directory.
        episodes: per task, 1 to 50. By default each of the 50 goals is played once, as in the paper, also where the
            run's own evaluations play fewer (`eval_episodes`).
        device: compute on another device than the run was trained on.
        progress: see `train`.

    Returns:
        One row per task, with the columns success and return. Its `attrs` hold collect, env_steps, mean_success and
        worst_10_success.

    Raises:
        UsageError: there is no run at this path.
        ToppoError: the run has no checkpoint.
    """
    if type(episodes) is not int or not 1 <= episodes <= N_GOALS:
        raise bad_option("episodes", episodes, f"must be a whole number from 1 to {N_GOALS}, the goals of a task")
    run, schedule, learner = _opened(run, device)
    schedule = dataclasses.replace(schedule, config=dataclasses.replace(schedule.config, eval_episodes=episodes))
    import pandas as pd

    from toppo.training.run import checkpoint as checkpoints
    from toppo.training.run import trainer
    from toppo.training.run.progress import Display

    console = _console(progress)

    def note(line: str) -> None:
        console.print(printable(line), **_PLAIN)

    stored = checkpoints.load_latest(run.checkpoints, note, lambda found: checkpoints.require_fits(learner, found))
    if stored is None:
        raise ToppoError(f"{run.path} has no checkpoint yet; train it with `toppo resume {run.path}`")
    run.require_same_config(run.config, stored.config)
    checkpoints.restore_learner(learner, stored.arrays)
    official = dataclasses.replace(schedule, config=dataclasses.replace(schedule.config, backend="metaworld"))
    with resources_named():
        backend = trainer.build_backend(official)
    for notice in backend.notices:
        note(notice)
    try:
        with resources_named(), Display(str(run.path), schedule, console) as display:
            outcome = trainer.evaluate(learner, backend, schedule.config, display, lambda: None)
    finally:
        backend.close()
    env_steps = stored.collect * schedule.config.env_steps_per_collect
    line = trainer.evaluation_line(outcome, learner.tasks, stored.collect, env_steps)
    table = pd.DataFrame.from_dict(line.pop("tasks"), orient="index").rename_axis("task")
    table.attrs |= line
    return table


def estimate(
    config: TrainConfig | str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    preset: str | None = None,
    **options: Any,
) -> Estimate:
    """What `train` would do with these arguments, and the disk and time that it would take. `print` shows all of it.

    The time is measured on this machine, which takes a few seconds. Nothing is written.

    Raises:
        UsageError: see `train`.
    """
    new_path(name)
    schedule, learner = _prepared(_configured(config, preset, options))
    from toppo.training.run import trainer
    from toppo.training.run.estimate import measure

    with resources_named():
        return measure(schedule, learner, trainer.planned_dump_bytes(schedule, learner))


def parameter_counts() -> pd.DataFrame:
    """Parameters of the paper's networks, without the optimizer's state: this project's rows of Table B.2.

    Returns:
        One row per method (TOPPO, Vanilla MT-PPO), one column per benchmark (MT10, MT50).
    """
    require_training()
    import pandas as pd

    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer

    counts: dict[str, dict[str, int]] = {}
    for benchmark in ("MT10", "MT50"):
        counts[benchmark] = {}
        for method, preset in (("TOPPO", "toppo"), ("Vanilla MT-PPO", "vanilla")):
            config = resolve({"benchmark": benchmark, "device": "cpu"}, preset=preset)
            counts[benchmark][method] = trainer.build_learner(config, task_names(benchmark)).n_parameters
    return pd.DataFrame(counts).rename_axis("method")


def require_training() -> None:
    """Check that the packages for training are installed.

    Raises:
        UsageError: torch or Meta-World is missing.
    """
    missing = [name for name in ("torch", "metaworld") if importlib.util.find_spec(name) is None]
    if missing:
        mend = "pip install 'toppo[train]'"
        if "metaworld" in missing and sys.version_info >= NOT_FOR_META_WORLD:
            mend += (
                f" with Python before {'.'.join(map(str, NOT_FOR_META_WORLD))}, because Meta-World refuses later ones"
            )
        raise UsageError(f"training needs {' and '.join(missing)}: {mend}")


def _configured(config: object, preset: str | None, options: dict[str, Any]) -> TrainConfig:
    """One configuration from the arguments of `train`."""
    if isinstance(config, TrainConfig):
        if preset is not None:
            raise bad_option("preset", preset, "`config` is complete already; give one of the two")
        given = {key: value for key, value in options.items() if value is not None}
        return from_dict({**config.to_dict(), **given}) if given else config
    if config is not None and not isinstance(config, (str, os.PathLike)):
        problem = "give a TrainConfig, or the path of a TOML file; single options are arguments of their own"
        raise bad_option("config", repr(config), problem)
    return resolve(options, preset=preset, file=config)


def _prepared(config: TrainConfig) -> tuple[Schedule, Learner]:
    """The plan of a new run, with its device decided, and a fresh learner."""
    with resources_named():
        return _planned(config)


def _planned(config: TrainConfig) -> tuple[Schedule, Learner]:
    require_training()
    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer

    schedule = plan(dataclasses.replace(config, device=str(trainer.select_device(config.device))))
    tasks = task_names(config.benchmark)
    trainer.require_backend(config)
    return schedule, trainer.build_learner(schedule.config, tasks)


def _opened(path: str | os.PathLike[str], device: str | None) -> tuple[Run, Schedule, Learner]:
    """An existing run, its plan on the device asked for, and a fresh learner."""
    run = Run(path)
    config = run.config
    require_training()
    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer

    schedule = plan(dataclasses.replace(config, device=str(device or config.device)))
    with resources_named():
        return run, schedule, trainer.build_learner(schedule.config, task_names(config.benchmark))


def _console(progress: bool | Console) -> Console:
    return progress if isinstance(progress, Console) else Console(quiet=not progress)


def _train_to_end(run: Run, schedule: Schedule, learner: Learner, console: Console) -> Run:
    """The run, trained to its end. Errors say how to go on."""
    from toppo.training.run.progress import Display
    from toppo.training.run.trainer import Trainer

    go_on = f"go on with `toppo resume {run.path}`"
    restored = False
    lock = run.lock()  # first of all: from here on no other process removes or writes anything of the run
    try:
        with resources_named(), Display(str(run.path), schedule, console) as display:
            trainer = Trainer(run, schedule, learner, display)
            trainer.restore()
            restored = True
            trainer.train()
    except Interrupted as stopped:
        raise Interrupted(f"stopped by {stopped}; {go_on}", stopped.signal_number) from None
    except KeyboardInterrupt:  # before the trainer takes note of signals, or from a thread that is not the main one
        raise Interrupted(f"stopped by SIGINT; {go_on}", signal.SIGINT) from None
    except (ToppoError, OSError) as error:
        if isinstance(error, ToppoError) and not restored:
            raise  # it names its own mend, without which the next attempt ends in the same way
        kind = WorkerDied if isinstance(error, WorkerDied) else ToppoError
        raise kind(f"{error}; {go_on}") from None
    finally:
        lock.release()
    return run

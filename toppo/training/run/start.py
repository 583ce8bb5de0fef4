"""Start a run, go on with one, evaluate one: what the command line and Python both call."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toppo.common.errors import ToppoError, UsageError
from toppo.training.config import TrainConfig
from toppo.training.errors import Interrupted, WorkerDied
from toppo.training.run.directory import RunDirectory

if TYPE_CHECKING:
    from toppo.training.learner.update import Learner


def require_training() -> None:
    """Refuse to train on a base install.

    Raises:
        UsageError: torch or Meta-World is missing.
    """
    missing = [name for name in ("torch", "metaworld") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"training needs {' and '.join(missing)}: pip install 'toppo[train]'")


def open_run(run: Path, device: str | None) -> tuple[RunDirectory, TrainConfig, Learner]:
    """An existing run, its configuration on the device asked for, and a fresh learner of it."""
    directory, config = RunDirectory.open(run)
    require_training()
    from toppo.training.envs.metaworld import task_names
    from toppo.training.run import trainer

    config = dataclasses.replace(config, device=device or config.device)
    return directory, config, trainer.build_learner(config, task_names(config.benchmark))


def train_to_end(run: RunDirectory, config: TrainConfig, learner: Learner, console: Console) -> dict[str, Any]:
    """Train to the end: the run, its collects and its last mean success."""
    import torch

    from toppo.dump import DumpError
    from toppo.training.run.progress import Display
    from toppo.training.run.schedule import plan
    from toppo.training.run.trainer import Trainer

    go_on = f"go on with `toppo resume {run.path}`"
    try:
        with Display(str(run.path), plan(config), console) as display:
            Trainer(run, config, learner, display).train()
    except Interrupted as stopped:
        raise Interrupted(f"stopped by {stopped}; {go_on}", stopped.signal_number) from None
    except (torch.OutOfMemoryError, MemoryError) as error:
        first_line = (str(error) or "out of memory").splitlines()[0]
        raise ToppoError(f"{first_line}; make room, then {go_on}") from None
    except (ToppoError, DumpError, OSError) as error:
        kind = WorkerDied if isinstance(error, WorkerDied) else ToppoError
        raise kind(f"{error}; {go_on}") from None
    lines = run.read(run.evaluation)
    return {"run": str(run.path), "collects": plan(config).collects, "mean_success": lines[-1]["mean_success"]}

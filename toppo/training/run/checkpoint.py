"""Checkpoints: everything that a run continues from, in one file of plain arrays. Loading it runs no code.

A checkpoint is the state between two collects (rollout phases with their updates). Environments need no state, because
they are built anew for every collect. Random streams need none either, because their keys are the seed and the number
of the collect.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toppo.common.errors import ToppoError
from toppo.common.files import write_whole
from toppo.training.learner.update import SIDES, Learner

KEPT = 2
"""Number of checkpoints that stay on disk. If the newest is damaged, the run goes on from the previous one."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a collect."""

    collect: int
    config: dict[str, Any]
    """The configuration, as `TrainConfig.to_dict` gives it."""
    arrays: dict[str, np.ndarray]
    """State of the learner and the trainer, by name."""


def save(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint whole or not at all, then delete all except the last `KEPT`.

    Returns:
        The path of the new checkpoint.

    Raises:
        OSError: the directory cannot be written.
    """
    path = directory / f"collect-{checkpoint.collect:06d}.npz"
    meta = json.dumps({"collect": checkpoint.collect, "config": checkpoint.config})
    arrays: dict[str, Any] = {"meta": np.array(meta), **checkpoint.arrays}
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    for old in _paths(directory)[:-KEPT]:
        old.unlink()
    return path


def load_latest(directory: Path, note: Callable[[str], object]) -> Checkpoint | None:
    """The newest readable checkpoint of a run; None if there are no checkpoints.

    Args:
        directory: directory of the checkpoints.
        note: called with a line about every newer checkpoint that cannot be read.

    Raises:
        ToppoError: there are checkpoints, but none can be read.
    """
    paths = _paths(directory)
    for path in reversed(paths):
        try:
            return load(path)
        except ToppoError as error:
            note(str(error))
    if paths:
        raise ToppoError(
            f"none of the checkpoints in {directory} can be read, so the run cannot go on; its dump and logs are "
            f"unchanged. Start a new run with `config={directory.parent / 'config.toml'}`"
        )
    return None


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        ToppoError: the file is truncated or is no checkpoint.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")))
        return Checkpoint(meta["collect"], meta["config"], arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        # A damaged zip raises one of these, depending on the damaged byte. RuntimeError says "encrypted" or "unknown
        # compression".
        raise ToppoError(f"{path} is not a readable checkpoint ({error})") from None


def _paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("collect-*.npz"))


def learner_state(learner: Learner) -> dict[str, np.ndarray]:
    """Copies of parameters, PopArt statistics, Adam's moments and combiner states, on the host."""
    state = {"theta": _host(learner.theta)}
    state |= {f"popart/{name}": _host(value) for name, value in learner.popart.state_dict().items()}
    for i, moments in learner.optimizer.state_dict()["state"].items():
        state |= {f"adam/{i}/{name}": _host(value) for name, value in moments.items()}
    for side in SIDES:
        state |= {f"combiner/{side}/{name}": value.copy() for name, value in learner.combiners[side].state().items()}
    return state


def restore_learner(learner: Learner, arrays: Mapping[str, np.ndarray]) -> None:
    """Set a learner to exactly the state that `learner_state` returned."""
    with torch.no_grad():
        learner.theta.copy_(torch.from_numpy(arrays["theta"]))
    learner.popart.load_state_dict({name: torch.from_numpy(value) for name, value in _under("popart/", arrays).items()})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("adam/", arrays).items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = torch.from_numpy(value)
    learner.optimizer.load_state_dict({**learner.optimizer.state_dict(), "state": moments})
    for side in SIDES:
        learner.combiners[side].restore(_under(f"combiner/{side}/", arrays))


def _host(value: torch.Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy().copy()
    return array


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

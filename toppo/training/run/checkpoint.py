"""Checkpoints: everything that a run continues from, in one file of plain arrays. Loading it runs no code.

A checkpoint is the state between two collects (rollout phases with their updates). Environments need no state, because
they are built anew for every collect. Random streams need none either, because their keys are the seed and the number
of the collect.

The file is an .npz archive. Its array `meta` holds JSON: the number of the collect, the configuration, the state of the
logs, and the type, shape and SHA-256 of every other array. A damaged file is thus found before anything is restored.
Checkpoints of earlier versions hold only the first two; their arrays are compared with those of a fresh learner.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toppo.common.errors import ToppoError
from toppo.common.files import write_whole
from toppo.common.jsonl import LogState

if TYPE_CHECKING:  # torch: a finished run is recognised without it
    import torch

    from toppo.training.learner.update import Learner

KEPT = 2
"""Number of checkpoints that stay on disk. If the newest is damaged, the run goes on from the previous one."""

VERSION = 2
"""Of the format. Version 1 has no key `version` and no digests."""

_NAME = re.compile(r"collect-(\d+)\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a collect."""

    collect: int
    config: dict[str, Any]
    """The configuration, as `TrainConfig.to_dict` gives it."""
    arrays: dict[str, np.ndarray]
    """State of the learner and the trainer, by name."""
    logs: dict[str, LogState] = field(default_factory=dict)
    """How far each log was written, by file name. Empty in checkpoints of earlier versions."""


def save(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint whole or not at all, then delete all except the last `KEPT`.

    Returns:
        The path of the new checkpoint.

    Raises:
        OSError: the directory cannot be written.
    """
    path = directory / f"collect-{checkpoint.collect:06d}.npz"
    body = {
        "version": VERSION,
        "collect": checkpoint.collect,
        "config": checkpoint.config,
        "logs": checkpoint.logs,
        "arrays": {name: _described(value) for name, value in checkpoint.arrays.items()},
    }
    meta = json.dumps({**body, "sha256": _digest_of(body)})
    arrays: dict[str, Any] = {"meta": np.array(meta), **checkpoint.arrays}
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    # A file with a later number was refused when the run went on, so it is not counted as one of those to keep.
    for collect, old in _numbered(directory)[:-KEPT]:
        if collect < checkpoint.collect:
            old.unlink()
    return path


def load_latest(
    directory: Path, note: Callable[[str], object], check: Callable[[Checkpoint], object] = lambda _: None
) -> Checkpoint | None:
    """The newest usable checkpoint of a run; None if there are no checkpoints.

    Args:
        directory: directory of the checkpoints.
        note: called with a line about every newer checkpoint that cannot be used.
        check: raises `ToppoError` for a checkpoint that does not fit the run.

    Raises:
        ToppoError: there are checkpoints, but none can be used.
    """
    paths = [path for _, path in _numbered(directory)]
    for path in reversed(paths):
        try:
            checkpoint = load(path)
            try:
                check(checkpoint)
            except ToppoError as error:
                raise _unreadable(path, str(error)) from None
            return checkpoint
        except ToppoError as error:
            note(str(error))
    if paths:
        raise ToppoError(
            f"none of the checkpoints in {directory} can be read, so the run cannot go on; its dump and logs are "
            f"unchanged. Start a new run with `config={directory.parent / 'config.toml'}`"
        )
    return None


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file, after every array was compared with its digest.

    Raises:
        ToppoError: the file is damaged, is no checkpoint, or is named for another collect.
    """
    try:
        arrays = dict(_members(path))
        checkpoint = _checked(path, json.loads(str(arrays.pop("meta"))), arrays)
    except ToppoError:
        raise
    except Exception as error:  # a zip archive and its arrays raise a dozen kinds: it depends on the damaged byte
        raise _unreadable(path, f"damaged: {type(error).__name__}") from None
    if (named := _NAME.fullmatch(path.name)) and int(named[1]) != checkpoint.collect:
        raise _unreadable(path, f"its content is of collect {checkpoint.collect}: the file was renamed")
    return checkpoint


def _checked(path: Path, meta: Any, arrays: dict[str, np.ndarray]) -> Checkpoint:
    if not isinstance(meta, dict) or not isinstance(meta.get("config"), dict):
        raise _unreadable(path, "it has no configuration")
    collect = meta.get("collect")
    if type(collect) is not int or collect < 0:
        raise _unreadable(path, "it has no number of a collect")
    if "version" not in meta:
        return Checkpoint(collect, meta["config"], arrays)
    if meta["version"] != VERSION:
        raise _unreadable(
            path, f"its format has version {meta['version']!r}; this toppo reads versions 1 and {VERSION}"
        )
    body = {key: value for key, value in meta.items() if key != "sha256"}
    if meta.get("sha256") != _digest_of(body):
        raise _unreadable(path, "its description is damaged")
    described = meta["arrays"]
    if lost := sorted(described.keys() ^ arrays.keys()):
        raise _unreadable(path, f"damaged: {lost[0]} is missing or does not belong to it")
    for name, value in arrays.items():
        if _described(value) != described[name]:
            raise _unreadable(path, f"damaged: {name} has another content than was saved")
    return Checkpoint(collect, meta["config"], arrays, {name: LogState(*state) for name, state in meta["logs"].items()})


def _members(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every array of an .npz archive. No array takes more memory than the file has bytes."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise _unreadable(path, "it is not a regular file")
    seen = set()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in seen or member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
                raise _unreadable(path, "damaged: its table of contents is wrong")
            seen.add(name)
            with archive.open(member) as file:
                value = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # reading to the end also compares the checksum
                    raise _unreadable(path, f"damaged: {name} is longer than it says")
            yield name, value


def _described(value: np.ndarray) -> list[Any]:
    """Type, shape and SHA-256 of an array, as JSON gives them back."""
    content = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
    return [value.dtype.str, list(value.shape), content]


def _digest_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _unreadable(path: Path, problem: str) -> ToppoError:
    return ToppoError(f"{path} is not a readable checkpoint ({problem})")


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    """Number and path of every checkpoint, the oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in directory.glob("collect-*.npz"))
    return sorted((int(name[1]), path) for name, path in found if name)


def learner_state(learner: Learner) -> dict[str, np.ndarray]:
    """Copies of parameters, PopArt statistics, Adam's moments and combiner states, on the host."""
    state = {"theta": _host(learner.theta)}
    state |= {f"popart/{name}": _host(value) for name, value in learner.popart.state_dict().items()}
    for i, moments in learner.optimizer.state_dict()["state"].items():
        state |= {f"adam/{i}/{name}": _host(value) for name, value in moments.items()}
    for side, combiner in learner.combiners.items():
        state |= {f"combiner/{side}/{name}": value.copy() for name, value in combiner.state().items()}
    return state


def require_fits(learner: Learner, checkpoint: Checkpoint) -> None:
    """Check that every array of a checkpoint belongs to this learner, and that nothing is missing or not finite.

    Nothing is restored. The states of combiners are tried on new combiners.

    Args:
        learner: freshly initialised, of the run's configuration.
        checkpoint: of the run.

    Raises:
        ToppoError: the first array that does not fit.
    """
    from toppo.combiners import make

    arrays = {name: value for name, value in checkpoint.arrays.items() if not name.startswith("combiner/")}
    expected = _expected(learner, started=checkpoint.collect > 0)
    for name in sorted(expected.keys() | arrays.keys()):
        if name not in arrays:
            raise ToppoError(f"{name} is missing")
        if name not in expected:
            raise ToppoError(f"{name} does not belong to this run")
        value, like = arrays[name], expected[name]
        if (value.dtype, value.shape) != (like.dtype, like.shape):
            raise ToppoError(
                f"{name} is {value.dtype} of shape {value.shape}; this run has {like.dtype} of shape {like.shape}"
            )
        # Adam's squares may overflow to infinity, and no collect has no success yet.
        not_allowed = np.isnan(value) if name.startswith("adam/") else ~np.isfinite(value)
        if not_allowed.any() and not (name == "success_ema" and checkpoint.collect == 0):
            raise ToppoError(f"{name} holds a number that is not finite")
    for side, combiner in learner.combiners.items():
        try:
            make(combiner.spec).restore(_under(f"combiner/{side}/", checkpoint.arrays))
        except Exception as error:  # of any package's combiner
            raise ToppoError(f"the state of the {side}'s combiner does not fit ({error})") from None


def _expected(learner: Learner, started: bool) -> dict[str, np.ndarray]:
    """Arrays of the types and shapes that a checkpoint of this learner has, without the combiners."""
    expected = {"theta": _host(learner.theta), "success_ema": np.zeros(len(learner.tasks))}
    expected |= {f"popart/{name}": _host(value) for name, value in learner.popart.state_dict().items()}
    if started:
        for i, parameter in enumerate(learner.optimizer.param_groups[0]["params"]):
            expected[f"adam/{i}/step"] = np.zeros((), np.float32)
            expected |= {f"adam/{i}/{name}": _host(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return expected


def restore_learner(learner: Learner, arrays: Mapping[str, np.ndarray]) -> None:
    """Set a learner to exactly the state that `learner_state` returned."""
    import torch

    with torch.no_grad():
        learner.theta.copy_(torch.from_numpy(arrays["theta"]))
    learner.popart.load_state_dict({name: torch.from_numpy(value) for name, value in _under("popart/", arrays).items()})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("adam/", arrays).items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = torch.from_numpy(value)
    learner.optimizer.load_state_dict({**learner.optimizer.state_dict(), "state": moments})
    for side, combiner in learner.combiners.items():
        combiner.restore(_under(f"combiner/{side}/", arrays))


def _host(value: torch.Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy().copy()
    return array


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

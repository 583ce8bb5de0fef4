"""A run's directory: config.toml, dump.zarr, progress.jsonl, timings.jsonl, evaluation.jsonl, checkpoint/.

The logs but `timings.jsonl` are functions of the configuration alone: a run that was stopped and resumed leaves the
same bytes as one that
never was.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from toppo.common.errors import ToppoError, UsageError
from toppo.common.files import write_whole
from toppo.training.config import ADDED, FIELDS, TrainConfig, from_dict, read_toml

ROOT = Path("dumps")


class RunDirectory:
    """Paths and logs of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.dump = path / "dump.zarr"
        self.checkpoints = path / "checkpoint"
        self.progress = path / "progress.jsonl"
        self.timings = path / "timings.jsonl"
        self.evaluation = path / "evaluation.jsonl"

    @classmethod
    def create(cls, name: str | None, config: TrainConfig) -> RunDirectory:
        """Make dumps/<name>, or the next free dumps/runN.

        Raises:
            UsageError: the directory exists, or cannot be written.
        """
        if name is not None and not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(f"--name {name!r}: use letters, digits, '.', '_' and '-'")
        run = cls(ROOT / (name or _next_free()))
        try:
            run.path.mkdir(parents=True)
            run.checkpoints.mkdir()
            write_whole(run.config, lambda file: file.write(config.to_toml().encode()))
        except FileExistsError:
            mend = (
                f"go on with it by `toppo resume {run.path}`" if run.config.exists() else "delete it: it holds no run"
            )
            raise UsageError(f"{run.path} exists: give another --name, or {mend}") from None
        except OSError as error:
            raise UsageError(f"cannot write {run.path}: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, path: Path) -> tuple[RunDirectory, TrainConfig]:
        """An existing run and its configuration.

        Raises:
            UsageError: there is no run at this path.
        """
        run = cls(path)
        if not run.config.is_file():
            raise UsageError(f"{path} is not a run: it has no config.toml")
        values = read_toml(run.config)
        missing = [key for key, field in FIELDS.items() if key not in {**ADDED, **values} and field.default is not None]
        if missing:
            raise UsageError(f"{run.config} is damaged: it lacks {', '.join(missing)}")
        return run, from_dict(values)

    def append(self, log: Path, line: dict[str, Any]) -> None:
        """Add one line to a log, on disk when this returns."""
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ToppoError(f"cannot write {log} ({error.strerror}): make room") from None

    def read(self, log: Path) -> list[dict[str, Any]]:
        """The whole lines of a log.

        Raises:
            ToppoError: a whole line that is damaged.
        """
        if not log.exists():
            return []
        lines = []
        for number, line in enumerate(
            log.read_bytes().split(b"\n")[:-1], start=1
        ):  # what follows the last is half a line
            try:
                lines.append(json.loads(line))
            except ValueError:
                raise ToppoError(f"{log}, line {number} is damaged: delete the line to go on") from None
        return lines

    def rewind(self, collect: int) -> None:
        """Cut the logs back to a checkpoint: lines of later collects, and a half-written one, go."""
        for log in (self.progress, self.timings, self.evaluation):
            if log.exists():
                kept = [line for line in self.read(log) if line["collect"] <= collect]
                text = "".join(json.dumps(line) + "\n" for line in kept)
                write_whole(log, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]

    def same_config(self, config: TrainConfig, stored: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint of another configuration; the device may be another one.

        Raises:
            ToppoError: naming the keys that differ.
        """
        ours, stored = config.to_dict(), {**ADDED, **stored}
        keys = sorted((ours.keys() | stored.keys()) - {"device"})
        differ = [f"{k} = {ours.get(k)!r}, checkpoint {stored.get(k)!r}" for k in keys if ours.get(k) != stored.get(k)]
        if differ:
            raise ToppoError(
                f"{self.checkpoints} holds a checkpoint of another configuration ({'; '.join(differ)}): "
                f"restore {self.config}, or start a new run with `toppo train --config {self.config}`"
            )


def _next_free() -> str:
    taken = [int(m[1]) for p in ROOT.glob("run*") if (m := re.fullmatch(r"run(\d+)", p.name))]
    return f"run{max(taken, default=0) + 1}"

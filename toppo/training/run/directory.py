"""A run on disk: configuration, dump, logs and checkpoints in one directory.

The directory holds config.toml, dump.zarr, progress.jsonl, timings.jsonl, evaluation.jsonl and checkpoint/. All except
timings.jsonl follow from the configuration alone. So a run that was stopped and resumed leaves the same bytes as one
that never stopped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toppo.common.errors import ToppoError, UsageError, bad_option
from toppo.common.files import write_whole
from toppo.training.config import ADDED, FIELDS, TrainConfig, from_dict, read_toml

if TYPE_CHECKING:
    import pandas as pd

    from toppo.dump import Dump

ROOT = Path("dumps")
"""Where runs are made, relative to the current directory."""


class Run:
    """One run: its directory, its configuration and what it has recorded so far.

    `toppo.train` and `toppo.resume` return it. `Run("dumps/run1")` opens one that is already there, also while it is
    still training. The object holds no results: every property except `config` reads the directory anew.

    Args:
        path: the run's directory.

    Attributes:
        path: the run's directory.
        config_file: config.toml.
        dump_store: dump.zarr, the store of the per-task gradients.
        checkpoints: directory of the checkpoints.
        progress_log: progress.jsonl, one line per collect (rollout phase with its updates).
        timings_log: timings.jsonl, one line per collect.
        evaluation_log: evaluation.jsonl, one line per evaluation.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.dump_store = self.path / "dump.zarr"
        self.checkpoints = self.path / "checkpoint"
        self.progress_log = self.path / "progress.jsonl"
        self.timings_log = self.path / "timings.jsonl"
        self.evaluation_log = self.path / "evaluation.jsonl"

    @classmethod
    def create(cls, name: str | None, config: TrainConfig) -> Run:
        """A new run in dumps/<name>, by default in the next free dumps/runN.

        Raises:
            UsageError: the directory exists already, or cannot be written.
        """
        if name is not None and not re.fullmatch(r"[\w.-]+", name):
            raise bad_option("name", repr(name), "use letters, digits, '.', '_' and '-'")
        run = cls(ROOT / (name or _next_free()))
        try:
            run.path.mkdir(parents=True)
            run.checkpoints.mkdir()
            write_whole(run.config_file, config.to_toml().encode())
        except FileExistsError:
            holds_run = run.config_file.exists()
            mend = f"go on with it by `toppo resume {run.path}`" if holds_run else "delete it, because it holds no run"
            raise UsageError(f"{run.path} exists: give another `name`, or {mend}") from None
        except OSError as error:
            raise UsageError(f"cannot write {run.path}: {error.strerror}") from None
        return run

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        try:
            config, steps, success = self.config, self.env_steps, self.mean_success
        except ToppoError as error:
            return f"<Run {self.path}: {error}>"
        evaluated = "" if success is None else f", mean success {success:.3f}"
        return f"<Run {self.path}: {config.benchmark}, {steps:,} of {config.env_steps:,} steps{evaluated}>"

    @cached_property
    def config(self) -> TrainConfig:
        """The configuration of the run.

        Raises:
            UsageError: there is no run at this path, or its config.toml is damaged.
        """
        if not self.config_file.is_file():
            raise UsageError(f"{self.path} is not a run: it has no config.toml")
        values = read_toml(self.config_file)
        missing = [key for key, field in FIELDS.items() if key not in {**ADDED, **values} and field.default is not None]
        if missing:
            raise UsageError(f"{self.config_file} is damaged: it lacks {', '.join(missing)}")
        return from_dict(values)

    @property
    def dump(self) -> Dump:
        """The dump of the run, opened anew. It holds what is recorded up to now.

        Raises:
            DumpError: there is no dump, because the run has not begun or the dump was moved away.
        """
        from toppo.dump import open_dump  # imports zarr, which is too slow for help texts

        return open_dump(self.dump_store)

    @property
    def progress(self) -> pd.DataFrame:
        """Training so far, one row per collect and task.

        Columns:

        - collect, env_steps, task.
        - Of the task: success and episode_return of the collect's episodes; success_ema, the moving average of success;
          loss_actor, loss_critic, entropy, ratio_clip_fraction, value_clip_fraction, approx_kl, actor_grad_norm and
          critic_grad_norm, which are means over the minibatches; popart_mu, popart_sigma, popart_count.
        - Of the collect, so equal in all its rows: mean_success, worst_10_success and clip_factor. For each side
          (actor, critic), norm spread, mean |cos| and the combiner's worst records, such as critic_norm_spread_median.

        `run.progress.groupby("env_steps")["success"].mean()` is the success curve.

        Raises:
            ToppoError: the log is damaged.
        """
        return _table(self.read(self.progress_log))

    @property
    def evaluations(self) -> pd.DataFrame:
        """Evaluations so far, one row per evaluation and task.

        Columns: collect, env_steps, task; success and return of the task; mean_success and worst_10_success over all
        tasks, equal in all rows of an evaluation.

        Raises:
            ToppoError: the log is damaged.
        """
        return _table(self.read(self.evaluation_log))

    @property
    def collects(self) -> int:
        """Number of collects that are finished."""
        lines = self.read(self.progress_log)
        return int(lines[-1]["collect"]) if lines else 0

    @property
    def env_steps(self) -> int:
        """Environment steps that are finished."""
        lines = self.read(self.progress_log)
        return int(lines[-1]["env_steps"]) if lines else 0

    @property
    def mean_success(self) -> float | None:
        """Success rate in the last evaluation, averaged over the tasks; None before the first evaluation."""
        lines = self.read(self.evaluation_log)
        return float(lines[-1]["mean_success"]) if lines else None

    def append(self, log: Path, line: dict[str, Any]) -> None:
        """Add one line to a log. It is on disk when this returns.

        Raises:
            ToppoError: the log cannot be written.
        """
        try:
            with log.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ToppoError(f"cannot write {log} ({error.strerror}): make room") from None

    def read(self, log: Path) -> list[dict[str, Any]]:
        """The lines of a log, except a last one that is only half written.

        Raises:
            ToppoError: another line is damaged.
        """
        if not log.exists():
            return []
        lines = []
        for number, line in enumerate(log.read_bytes().split(b"\n")[:-1], start=1):
            try:
                lines.append(json.loads(line))
            except ValueError:
                raise ToppoError(f"{log}, line {number} is damaged: delete the line to go on") from None
        return lines

    def rewind(self, collect: int) -> None:
        """Cut the logs back to a checkpoint: remove the lines of later collects, and a half-written line."""
        for log in (self.progress_log, self.timings_log, self.evaluation_log):
            if log.exists():
                kept = [line for line in self.read(log) if line["collect"] <= collect]
                write_whole(log, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def require_same_config(self, config: TrainConfig, stored: dict[str, Any]) -> None:
        """Check that a checkpoint has this run's configuration. The device may differ.

        Args:
            config: configuration of the run.
            stored: the configuration in the checkpoint.

        Raises:
            ToppoError: the configurations differ. The message names the keys.
        """
        ours, stored = config.to_dict(), {**ADDED, **stored}
        keys = sorted((ours.keys() | stored.keys()) - {"device"})
        differ = [f"{k} = {ours.get(k)!r}, checkpoint {stored.get(k)!r}" for k in keys if ours.get(k) != stored.get(k)]
        if differ:
            raise ToppoError(
                f"{self.checkpoints} holds a checkpoint of another configuration ({'; '.join(differ)}): "
                f"restore {self.config_file}, or start a new run with `config={self.config_file}`"
            )


def _next_free() -> str:
    taken = [int(m[1]) for p in ROOT.glob("run*") if (m := re.fullmatch(r"run(\d+)", p.name))]
    return f"run{max(taken, default=0) + 1}"


def _table(lines: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per line and task. The numbers of a side get its name in front, such as critic_worst_residual."""
    import pandas as pd

    rows = []
    for line in lines:
        whole: dict[str, Any] = {}
        for key, value in line.items():
            if isinstance(value, dict) and key != "tasks":
                whole |= {f"{key}_{name}": number for name, number in value.items()}
            elif key != "tasks":
                whole[key] = value
        first = {key: whole.pop(key) for key in ("collect", "env_steps")}
        rows += [{**first, "task": task, **numbers, **whole} for task, numbers in line["tasks"].items()]
    return pd.DataFrame(rows, columns=None if rows else ["collect", "env_steps", "task"])

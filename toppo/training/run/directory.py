"""A run on disk: configuration, dump, logs and checkpoints in one directory.

The directory holds config.toml, dump.zarr, progress.jsonl, timings.jsonl, evaluation.jsonl and checkpoint/. All except
timings.jsonl follow from the configuration alone. So a run that was stopped and resumed leaves the same bytes as one
that never stopped.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toppo.common.errors import ToppoError, UsageError, bad_option
from toppo.common.files import write_whole
from toppo.common.jsonl import Log, LogState, Tail, parse
from toppo.common.lock import Lock, Locked
from toppo.common.names import RUNS, suggested_run
from toppo.training.config import ADDED, FIELDS, TrainConfig, from_dict, read_toml

if TYPE_CHECKING:
    import pandas as pd

    from toppo.dump import Dump

_IN_EVERY_LINE = ("collect", "env_steps", "mean_success", "tasks")


def new_path(name: str | None) -> Path:
    """The directory of a new run: dumps/<name>, by default the next free dumps/runN. Nothing is made.

    Raises:
        UsageError: the name leads out of dumps/, or is taken.
    """
    if name is not None and (not re.fullmatch(r"[\w.-]+", name) or set(name) == {"."}):
        raise bad_option("name", repr(name), "use letters, digits, '.', '_' and '-', and not dots alone")
    path = RUNS / (name or _next_free())
    if path.is_symlink() or path.exists():
        if (path / "config.toml").exists():
            raise UsageError(f"{path} exists: give another `name`, or go on with it by `toppo resume {path}`")
        raise UsageError(f"{path} exists and holds no run: give another `name`")
    return path


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
        self._tails: dict[Path, Tail] = {}

    @classmethod
    def create(cls, name: str | None, config: TrainConfig) -> Run:
        """A new run in dumps/<name>, by default in the next free dumps/runN.

        Raises:
            UsageError: the directory exists already, or cannot be written.
        """
        run = cls(new_path(name))
        try:
            run.path.mkdir(parents=True)
            run.checkpoints.mkdir()
            write_whole(run.config_file, config.to_toml().encode())
        except FileExistsError:
            new_path(run.path.name)  # another process made it meanwhile
            raise
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
            hint = suggested_run(self.path, "give a run directory such as dumps/run1")
            raise UsageError(f"{self.path} is not a run: it has no config.toml; {hint}")
        values = read_toml(self.config_file)
        missing = [key for key, field in FIELDS.items() if key not in {**ADDED, **values} and field.default is not None]
        if missing:
            raise UsageError(f"{self.config_file} is damaged: it lacks {', '.join(missing)}")
        try:
            return from_dict(values)
        except UsageError as error:
            raise UsageError(f"{self.config_file} is damaged: {error}") from None

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
        return log_table(self.read(self.progress_log))

    @property
    def evaluations(self) -> pd.DataFrame:
        """Evaluations so far, one row per evaluation and task.

        Columns: collect, env_steps, task; success and return of the task; mean_success and worst_10_success over all
        tasks, equal in all rows of an evaluation.

        Raises:
            ToppoError: the log is damaged.
        """
        return log_table(self.read(self.evaluation_log))

    @property
    def collects(self) -> int:
        """Number of collects that are finished."""
        lines = self.read(self.progress_log)
        return lines[-1]["collect"] if lines else 0

    @property
    def env_steps(self) -> int:
        """Environment steps that are finished."""
        lines = self.read(self.progress_log)
        return lines[-1]["env_steps"] if lines else 0

    @property
    def mean_success(self) -> float | None:
        """Success rate in the last evaluation, averaged over the tasks; None before the first evaluation."""
        lines = self.read(self.evaluation_log)
        return float(lines[-1]["mean_success"]) if lines else None

    def lock(self) -> Lock:
        """The right to train this run, taken at once. The caller releases it.

        Raises:
            ToppoError: another process is training the run.
            OSError: the run's directory cannot be written.
        """
        try:
            return Lock(self.path / ".lock")
        except Locked:
            raise ToppoError(f"{self.path}: another process is training it; wait for it or stop it") from None

    def append(self, log: Path, line: Mapping[str, Any]) -> None:
        """Add one line to a log. It is on disk when this returns.

        Raises:
            ToppoError: the log is damaged or cannot be written.
        """
        tail = self._tail(log)
        try:
            with log.open("ab") as file:
                file.write(tail.added(line))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            mend = ": make room" if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)) else ""
            raise ToppoError(f"cannot write {log} ({error.strerror}){mend}") from None

    def _tail(self, log: Path) -> Tail:
        """The end of a log. It is read again only if somebody else wrote to the log."""
        size = log.stat().st_size if log.exists() else 0
        if log not in self._tails or self._tails[log].size != size:
            self._tails[log] = Tail(self._parsed(log))
        return self._tails[log]

    def read(self, log: Path) -> list[dict[str, Any]]:
        """The lines of a log, except a last one that is only half written.

        Raises:
            ToppoError: another line is damaged.
        """
        return list(self._parsed(log).lines)

    def _parsed(self, log: Path) -> Log:
        if not log.exists():
            return parse(b"", log)
        if not log.is_file():  # reading a pipe would wait for ever
            raise ToppoError(f"{log} is not a regular file: restore the log from a copy")
        return parse(log.read_bytes(), log, ("collect",) if log == self.timings_log else _IN_EVERY_LINE)

    def log_states(self) -> dict[str, LogState]:
        """How far the logs of progress and evaluations are written, by file name."""
        return {log.name: self._tail(log).state() for log in (self.progress_log, self.evaluation_log)}

    def require_logs(self, collect: int, states: Mapping[str, LogState]) -> None:
        """Check that the logs hold what a checkpoint remembers.

        Args:
            collect: of the checkpoint. Each collect up to it has a line in progress.jsonl.
            states: as `log_states` gave them when the checkpoint was made; empty for one of an earlier version.

        Raises:
            ToppoError: a log is gone, is damaged, or lost or changed a line.
        """
        collects = [line["collect"] for line in self.read(self.progress_log)]
        if collects[:collect] != list(range(1, collect + 1)):
            states = {**states, self.progress_log.name: states.get(self.progress_log.name, LogState(collect, ""))}
        for name, state in states.items():
            log = self.path / name
            found = self._parsed(log)
            if found.begins_with(state):
                continue
            has = f"has {len(found.lines)} lines" if log.exists() else "is gone"
            changed = "has other lines" if len(found.lines) >= state.lines else has
            raise ToppoError(
                f"{log} {changed}, and the checkpoint of collect {collect} remembers {state.lines}: "
                f"restore the log from a copy, or start a new run with `config={self.config_file}`"
            )

    def rewind(self, collect: int) -> None:
        """Cut the logs back to a checkpoint: remove the lines of later collects, and a half-written line."""
        for log in (self.progress_log, self.timings_log, self.evaluation_log):
            if log.exists():
                write_whole(log, self._parsed(log).upto(collect))
                self._tails.pop(log, None)

    def require_same_config(self, config: TrainConfig, stored: dict[str, Any], holder: str = "checkpoint") -> None:
        """Check that a checkpoint or a dump has this run's configuration. The device may differ.

        Args:
            config: configuration of the run.
            stored: the configuration in the checkpoint or the dump.
            holder: "checkpoint" or "dump".

        Raises:
            ToppoError: the configurations differ. The message names the keys.
        """
        ours, stored = config.to_dict(), {**ADDED, **stored}
        keys = sorted((ours.keys() | stored.keys()) - {"device"})
        differ = [f"{k} = {ours.get(k)!r}, {holder} {stored.get(k)!r}" for k in keys if ours.get(k) != stored.get(k)]
        if differ:
            place = self.checkpoints if holder == "checkpoint" else self.dump_store
            raise ToppoError(
                f"{place} holds a {holder} of another configuration ({'; '.join(differ)}): "
                f"restore {self.config_file}, or start a new run with `config={self.config_file}`"
            )

    def require_same_config_as_dump(self, config: TrainConfig) -> None:
        """Check that the dump, if there is one, is of this run's configuration.

        Raises:
            ToppoError: the configurations differ; the message names the keys.
            DumpError: the dump is damaged.
        """
        if self.dump_store.exists() and isinstance(stored := self.dump.attrs.get("config"), dict):
            self.require_same_config(config, stored, "dump")


def _next_free() -> str:
    taken = [int(m[1]) for p in RUNS.glob("run*") if (m := re.fullmatch(r"run(\d+)", p.name))]
    return f"run{max(taken, default=0) + 1}"


def log_table(lines: Iterable[dict[str, Any]]) -> pd.DataFrame:
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

"""A run, from the first collect or from a checkpoint to the last: collect, update, record, checkpoint, evaluate."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toppo.common.allocator import keep_freed_memory
from toppo.common.errors import ToppoError, UsageError
from toppo.dump import worst_k
from toppo.training.config import TrainConfig
from toppo.training.envs.envpool import EnvPoolBackend, require_envpool
from toppo.training.envs.interface import Backend, Evaluation, Rollout
from toppo.training.envs.metaworld import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.envs.workers import MetaWorldBackend
from toppo.training.errors import Interrupted
from toppo.training.learner.networks import NetworkShape
from toppo.training.learner.policy import ActorPolicy
from toppo.training.learner.rollout import Batch
from toppo.training.learner.statistics import UpdateStatistics
from toppo.training.learner.update import Learner
from toppo.training.run import checkpoint as checkpoints
from toppo.training.run.checkpoint import Checkpoint
from toppo.training.run.directory import RunDirectory
from toppo.training.run.progress import Display
from toppo.training.run.recording import Recorder, snapshot_bytes
from toppo.training.run.schedule import Schedule, plan
from toppo.training.run.signals import noted_signals

SUCCESS_EMA_RATE = 0.05
"""Weight of the newest collect in the long moving average of training success."""


def select_device(name: str) -> torch.device:
    """The device a user asked for; "auto" is CUDA where it is there.

    Raises:
        UsageError: CUDA asked for but absent, or no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {name}: no CUDA device is available to torch {torch.__version__}; give --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are only {torch.cuda.device_count()} CUDA devices")
    return device


def build_learner(config: TrainConfig, tasks: tuple[str, ...]) -> Learner:
    """The learner of a configuration, freshly initialised."""
    shape = NetworkShape(len(tasks), OBS_DIM, ACTION_DIM, config.hidden)
    return Learner(config, shape, tasks, select_device(config.device))


def require_backend(config: TrainConfig) -> None:
    """Refuse a backend that is not installed.

    Raises:
        UsageError: saying what to install.
    """
    if config.backend == "envpool":
        require_envpool()


def build_backend(config: TrainConfig, schedule: Schedule) -> Backend:
    """The environments of a configuration. Evaluations are the official package's with any backend."""
    options: dict[str, Any] = {
        "seed": config.seed,
        "workers": config.workers,
        "copies": config.envs_per_task,
        "episodes_per_env": schedule.episodes_per_env,
        "eval_episodes": config.eval_episodes,
    }
    if config.backend == "envpool":
        return EnvPoolBackend(config.benchmark, **options)
    return MetaWorldBackend(config.benchmark, reward=config.reward, **options)


def planned_dump_bytes(schedule: Schedule, learner: Learner, after: int = 0) -> int:
    """Disk the run's dump will still take after a collect: snapshots and the Gram stream."""
    config = schedule.config
    parameters = learner.slabs["actor"].size + learner.slabs["critic"].size
    snapshot = snapshot_bytes(parameters, config.n_tasks, config.dump_minibatches) if config.dump_slabs else 0
    stream = len(schedule.streamed_minibatches) * 2 * config.n_tasks**2 * 8
    return sum(c > after for c in schedule.snapshots) * snapshot + (schedule.collects - after) * stream


def require_disk(directory: Path, needed: int) -> None:
    """Refuse to start a run whose dump cannot fit.

    Raises:
        ToppoError: with both numbers.
    """
    parent = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ToppoError(
            f"the dump needs about {needed / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB free: "
            "dump less often (--dump-every), fewer minibatches (--dump-minibatches), or elsewhere"
        )


class Trainer:
    """One run in one directory.

    Args:
        run: its directory.
        config: its configuration.
        learner: freshly initialised.
        display: what the user sees.
    """

    def __init__(self, run: RunDirectory, config: TrainConfig, learner: Learner, display: Display) -> None:
        self.run, self.config, self.display = run, config, display
        self.schedule = plan(config)
        self.learner = learner
        self.clock = learner.clock
        self.collect = 0
        self.success_ema = np.full(len(learner.tasks), np.nan)

    def train(self) -> None:
        """Go from the newest checkpoint (or the start) to the end.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the last checkpoint stands.
            ToppoError: the run cannot go on; the last checkpoint stands.
        """
        stored = checkpoints.load_latest(self.run.checkpoints, self.display.note)
        if stored is not None:
            self.run.same_config(self.config, stored.config)
            self._restore(stored)
        elif self.run.read(self.run.progress):
            raise ToppoError(
                f"{self.run.checkpoints} is empty, but {self.run.progress} has collects: put the checkpoints back, or "
                f"start anew with `toppo train --config {self.run.config}`"
            )
        keep_freed_memory()
        require_disk(self.run.path, planned_dump_bytes(self.schedule, self.learner, self.collect))
        with _stop_signals() as stop:
            backend = build_backend(self.config, self.schedule)
            for notice in backend.notices:
                self.display.note(notice)
            try:
                self._train(backend, stop)
            finally:
                backend.close()

    def _train(self, backend: Backend, stop: Callable[[], None]) -> None:
        recorder = self._recorder(backend)  # takes the dump's lock: from here on the run is ours alone
        try:
            self.run.rewind(self.collect)
            if self.collect == 0:
                recorder.after_commit(self._checkpoint_action())
                recorder.flush()
            self.display.begin(self.collect)
            self._evaluate_if_due(backend, stop)
            batch = Batch.empty(backend.arrays, self.learner.device)
            while self.collect < self.schedule.collects:
                self._one_collect(backend, batch, recorder, stop)
                self._evaluate_if_due(backend, stop)
        except BaseException:
            recorder.abandon()
            raise
        recorder.close()

    def _recorder(self, backend: Backend) -> Recorder:
        committed = (sum(c <= self.collect for c in self.schedule.snapshots), self.collect)
        exists = self.run.dump.exists()
        if self.collect > 0 and not exists:
            raise ToppoError(f"{self.run.dump} is gone: put it back, or start anew with another --name")
        return Recorder(self.run.dump, self.schedule, self.learner, backend.versions, committed if exists else None)

    def _one_collect(self, backend: Backend, batch: Batch, recorder: Recorder, stop: Callable[[], None]) -> None:
        collect, per_collect = self.collect + 1, self.config.env_steps_per_collect
        before = self.collect * per_collect

        def collecting(steps: int) -> None:
            stop()
            self.display.activity("collecting", steps, per_collect, before + steps)

        def arrived(task: int, episodes: slice) -> None:
            batch.load(backend.arrays, task, episodes)

        with self.clock.phase("environment"):
            rollout = backend.rollout(ActorPolicy(self.learner.actor), collect, collecting, arrived)
        statistics = UpdateStatistics()
        recorder.begin(collect)

        def observe(update: Any) -> None:
            stop()
            statistics.add(update)
            with self.clock.phase("dump"):
                recorder.observe(update)
            self.display.activity("updating", update.index + 1, self.schedule.updates)

        with self.clock.phase("update"):
            self.learner.update(batch, collect, observe)
        self.collect = collect
        self._record(rollout, statistics, recorder)

    def _record(self, rollout: Rollout, statistics: UpdateStatistics, recorder: Recorder) -> None:
        """Everything a finished collect leaves behind. The checkpoint is written last, after all it vouches for."""
        success, returns = rollout.success.mean(axis=1), rollout.rewards.sum(axis=2).mean(axis=1)
        rate = np.where(np.isnan(self.success_ema), 1.0, SUCCESS_EMA_RATE)
        self.success_ema = (1 - rate) * np.nan_to_num(self.success_ema) + rate * success
        popart = {
            f"popart_{name}": getattr(self.learner.popart, name).cpu().numpy() for name in ("mu", "sigma", "count")
        }
        per_task = {**popart, "success": success, "success_ema": self.success_ema, "episode_return": returns}
        env_steps = self.collect * self.config.env_steps_per_collect
        line = {
            "collect": self.collect,
            "env_steps": env_steps,
            "mean_success": float(success.mean()),
            "worst_10_success": float(worst_k(success, 10)),
            **statistics.summary(),
            **self._norm_deviation(),
            "tasks": _by_task(self.learner.tasks, {**per_task, **statistics.per_task()}),
        }
        with self.clock.phase("dump"):
            recorder.finish(env_steps, per_task)
            self.run.append(self.run.progress, line)
            recorder.after_commit(self._checkpoint_action())
        lap = self.clock.lap()
        rates = throughput(lap.phases, self.schedule)
        timing = {"collect": self.collect, **_rounded(lap.phases), "update_parts": _rounded(lap.update_parts), **rates}
        self.run.append(self.run.timings, timing)
        self.display.collect_done(self.collect, lap.phases, rates, line["mean_success"], line["worst_10_success"])

    def _norm_deviation(self) -> dict[str, float]:
        if not self.learner.pins_norm:
            return {}
        names = ("worst_norm_deviation", "worst_norm_deviation_of_live_tasks")
        return dict(zip(names, self.learner.worst_norm_deviation.tolist(), strict=True))

    def _checkpoint_action(self) -> Callable[[], object]:
        arrays = {**checkpoints.learner_state(self.learner), "success_ema": self.success_ema.copy()}
        snapshot = Checkpoint(self.collect, self.config.to_dict(), arrays)
        return lambda: checkpoints.save(self.run.checkpoints, snapshot)

    def _restore(self, stored: Checkpoint) -> None:
        self.collect = stored.collect
        self.success_ema = stored.arrays["success_ema"]
        checkpoints.restore_learner(self.learner, stored.arrays)

    def _evaluate_if_due(self, backend: Backend, stop: Callable[[], None]) -> None:
        done = {line["collect"] for line in self.run.read(self.run.evaluation)}
        if self.collect not in self.schedule.evaluations or self.collect in done:
            return
        with self.clock.phase("evaluation"):
            evaluation = evaluate(self.learner, backend, self.config, self.display, stop)
        env_steps = self.collect * self.config.env_steps_per_collect
        line = evaluation_line(evaluation, self.learner.tasks, self.collect, env_steps)
        self.run.append(self.run.evaluation, line)
        self.display.note(f"evaluation at {env_steps:,} steps: mean success {line['mean_success']:.3f}")


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def throughput(lap: dict[str, float], schedule: Schedule) -> dict[str, int]:
    """Of one collect: environment steps a second, and samples a second of the update, values included."""
    steps = schedule.config.env_steps_per_collect
    return {
        "collection_steps_per_s": round(steps / lap["environment"]),
        "update_samples_per_s": round(steps * schedule.config.repeats / (lap["update"] + lap["values"])),
    }


def evaluate(
    learner: Learner, backend: Backend, config: TrainConfig, display: Display, stop: Callable[[], None]
) -> Evaluation:
    """The paper's evaluation (Section B.1) of the learner's current policy."""
    most = len(learner.tasks) * config.eval_episodes * HORIZON

    def evaluating(steps: int) -> None:
        stop()
        display.activity("evaluating", steps, most)

    return backend.evaluate(ActorPolicy(learner.actor), evaluating)


def evaluation_line(evaluation: Evaluation, tasks: tuple[str, ...], collect: int, env_steps: int) -> dict[str, Any]:
    """One line of evaluation.jsonl."""
    success = evaluation.success_rate
    return {
        "collect": collect,
        "env_steps": env_steps,
        "mean_success": float(success.mean()),
        "worst_10_success": float(worst_k(success, 10)),
        "tasks": _by_task(tasks, {"success": success, "return": evaluation.returns.mean(axis=1)}),
    }


def _by_task(tasks: tuple[str, ...], numbers: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {task: {name: float(values[i]) for name, values in numbers.items()} for i, task in enumerate(tasks)}


@contextmanager
def _stop_signals() -> Iterator[Callable[[], None]]:
    """Within this context SIGINT and SIGTERM are noted; the function it gives raises `Interrupted` once one came."""
    with noted_signals() as received:

        def stop() -> None:
            if received:
                raise Interrupted(signal.Signals(received[0]).name, received[0])

        yield stop

"""The loop of a run: rollout, update, record, checkpoint, evaluate. It starts from a checkpoint if there is one."""

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
from toppo.common.errors import ToppoError, bad_option
from toppo.dump import worst_k
from toppo.training.config import TrainConfig
from toppo.training.envs.envpool import EnvPoolBackend, require_envpool
from toppo.training.envs.interface import Backend, Evaluation, Rollout
from toppo.training.envs.sizes import ACTION_DIM, OBS_DIM
from toppo.training.envs.workers import MetaWorldBackend
from toppo.training.errors import Interrupted
from toppo.training.learner.networks import NetworkShape
from toppo.training.learner.policy import ActorPolicy
from toppo.training.learner.rollout import Batch
from toppo.training.learner.statistics import UpdateStatistics
from toppo.training.learner.update import Learner
from toppo.training.run import checkpoint as checkpoints
from toppo.training.run.checkpoint import Checkpoint
from toppo.training.run.directory import Run
from toppo.training.run.progress import Display
from toppo.training.run.recording import Recorder, snapshot_bytes
from toppo.training.run.schedule import Schedule
from toppo.training.run.signals import noted_signals

SUCCESS_EMA_RATE = 0.05
"""Weight of the newest collect (rollout phase with its updates) in the moving average of training success."""


def select_device(name: str) -> torch.device:
    """The torch device with this name. "auto" is CUDA if there is a CUDA device, and else the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise bad_option("device", name, "give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise bad_option("device", name, "give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        problem = f"no CUDA device is available to torch {torch.__version__}; give cpu"
        raise bad_option("device", name, problem)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise bad_option("device", name, f"there are only {torch.cuda.device_count()} CUDA devices")
    return device


def build_learner(config: TrainConfig, tasks: tuple[str, ...]) -> Learner:
    """A freshly initialised learner for this configuration and these task names."""
    shape = NetworkShape(len(tasks), OBS_DIM, ACTION_DIM, config.hidden)
    return Learner(config, shape, tasks, select_device(config.device))


def require_backend(config: TrainConfig) -> None:
    """Check that the simulator is installed.

    Raises:
        UsageError: the simulator is not installed. The message says what to install.
    """
    if config.backend == "envpool":
        require_envpool()


def build_backend(schedule: Schedule) -> Backend:
    """The environments of a run. Every backend evaluates with the official package."""
    config = schedule.config
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
    """Bytes that the snapshots and the Gram stream of a run will add to its dump after the collect `after`."""
    config = schedule.config
    parameters = learner.slabs["actor"].size + learner.slabs["critic"].size
    snapshot = snapshot_bytes(parameters, config.n_tasks, config.dump_minibatches) if config.dump_slabs else 0
    stream = len(schedule.streamed_minibatches) * 2 * config.n_tasks**2 * 8
    snapshots = len(schedule.snapshots) - schedule.snapshots_until(after)
    return snapshots * snapshot + (schedule.collects - after) * stream


def require_disk(directory: Path, needed: int) -> None:
    """Check that a dump fits on the disk.

    Raises:
        ToppoError: the dump does not fit. The message gives both sizes.
    """
    parent = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ToppoError(
            f"the dump needs about {needed / 1e9:.1f} GB, but {parent} has {free / 1e9:.1f} GB free: dump less often "
            "(`dump_every`), dump fewer minibatches (`dump_minibatches`), or train in another directory"
        )


class Trainer:
    """Trains one run in its directory.

    Args:
        run: the run.
        schedule: plan of the run, with its configuration.
        learner: a freshly initialised learner.
        display: shows the progress.
    """

    def __init__(self, run: Run, schedule: Schedule, learner: Learner, display: Display) -> None:
        self.run, self.schedule, self.config, self.display = run, schedule, schedule.config, display
        self.learner = learner
        self.clock = learner.clock
        self.collect = 0
        self.success_ema = np.full(len(learner.tasks), np.nan)

    def restore(self) -> None:
        """Go to the newest checkpoint, if there is one. Nothing is written.

        Raises:
            ToppoError: what the run has on disk is damaged, or does not belong together. The message says the mend.
        """
        stored = checkpoints.load_latest(
            self.run.checkpoints, self.display.note, lambda found: checkpoints.require_fits(self.learner, found)
        )
        self.run.require_same_config_as_dump(self.config)
        if stored is not None:
            self.run.require_same_config(self.config, stored.config)
            self.run.require_logs(stored.collect, stored.logs)
            self._restore(stored)
        elif self.run.read(self.run.progress_log):
            raise ToppoError(
                f"{self.run.checkpoints} is empty, but {self.run.progress_log} lists collects: put the checkpoints "
                f"back, or start a new run with `config={self.run.config_file}`"
            )

    def train(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: SIGINT or SIGTERM came. The last checkpoint is intact.
            ToppoError: the run cannot go on. The last checkpoint is intact.
        """
        keep_freed_memory()
        require_disk(self.run.path, planned_dump_bytes(self.schedule, self.learner, self.collect))
        with _stop_signals() as stop:
            backend = build_backend(self.schedule)
            for notice in backend.notices:
                self.display.note(notice)
            try:
                self._train(backend, stop)
            finally:
                backend.close()

    def _train(self, backend: Backend, stop: Callable[[], None]) -> None:
        recorder = self._recorder(backend)
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
            # once more: it now remembers the line of the last evaluation
            recorder.after_commit(self._checkpoint_action())
        except BaseException:
            recorder.abandon()
            raise
        recorder.close()

    def _recorder(self, backend: Backend) -> Recorder:
        committed = (self.schedule.snapshots_until(self.collect), self.collect)
        exists = self.run.dump_store.exists()
        if self.collect > 0 and not exists:
            raise ToppoError(f"{self.run.dump_store} is gone: put it back, or start a new run with another `name`")
        return Recorder(
            self.run.dump_store, self.schedule, self.learner, backend.versions, committed if exists else None
        )

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
        """Write everything about a finished collect. The checkpoint comes last, after everything that it relies on."""
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
            self.run.append(self.run.progress_log, line)
            recorder.after_commit(self._checkpoint_action())
        lap = self.clock.lap()
        rates = throughput(lap.phases, self.schedule)
        timing = {"collect": self.collect, **_rounded(lap.phases), "update_parts": _rounded(lap.update_parts), **rates}
        self.run.append(self.run.timings_log, timing)
        self.display.collect_done(self.collect, lap.phases, rates, line["mean_success"], line["worst_10_success"])

    def _norm_deviation(self) -> dict[str, float]:
        if not self.learner.pins_norm:
            return {}
        names = ("worst_norm_deviation", "worst_norm_deviation_of_live_tasks")
        return dict(zip(names, self.learner.worst_norm_deviation.tolist(), strict=True))

    def _checkpoint_action(self) -> Callable[[], object]:
        arrays = {**checkpoints.learner_state(self.learner), "success_ema": self.success_ema.copy()}
        snapshot = Checkpoint(self.collect, self.config.to_dict(), arrays, self.run.log_states())
        return lambda: checkpoints.save(self.run.checkpoints, snapshot)

    def _restore(self, stored: Checkpoint) -> None:
        self.collect = stored.collect
        self.success_ema = stored.arrays["success_ema"]
        checkpoints.restore_learner(self.learner, stored.arrays)

    def _evaluate_if_due(self, backend: Backend, stop: Callable[[], None]) -> None:
        done = {line["collect"] for line in self.run.read(self.run.evaluation_log)}
        if self.collect not in self.schedule.evaluations or self.collect in done:
            return
        with self.clock.phase("evaluation"):
            evaluation = evaluate(self.learner, backend, self.config, self.display, stop)
        env_steps = self.collect * self.config.env_steps_per_collect
        line = evaluation_line(evaluation, self.learner.tasks, self.collect, env_steps)
        self.run.append(self.run.evaluation_log, line)
        self.display.note(f"evaluation at {env_steps:,} steps: mean success {line['mean_success']:.3f}")


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def throughput(lap: dict[str, float], schedule: Schedule) -> dict[str, int]:
    """Environment steps per second of one collect, and samples per second of its update and value computation."""
    steps = schedule.config.env_steps_per_collect
    return {
        "collection_steps_per_s": round(steps / lap["environment"]),
        "update_samples_per_s": round(steps * schedule.config.repeats / (lap["update"] + lap["values"])),
    }


def evaluate(
    learner: Learner, backend: Backend, config: TrainConfig, display: Display, stop: Callable[[], None]
) -> Evaluation:
    """The paper's evaluation (Section B.1) of the learner's current policy.

    Args:
        learner: the learner. Its policy plays the mean action.
        backend: the environments.
        config: configuration of the run.
        display: shows the progress.
        stop: called several times. If it raises, the evaluation is abandoned.
    """
    most = len(learner.tasks) * config.eval_episodes * backend.horizon

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
    """A function that raises `Interrupted` once SIGINT or SIGTERM has come. The signals have no other effect here."""
    with noted_signals() as received:

        def stop() -> None:
            if received:
                raise Interrupted(signal.Signals(received[0]).name, received[0])

        yield stop

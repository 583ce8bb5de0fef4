"""What a training run writes to its dump. Only this module knows both the learner and the store."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from toppo.capture.combining import combination_scalars, combination_specs
from toppo.dump import ENV_STEPS, DumpWriter, ScalarSpec
from toppo.training.learner.update import PER_TASK, SIDES, Learner, MinibatchUpdate
from toppo.training.run.schedule import Schedule

_PER_TASK_MEANING = {
    "loss_actor": ("1", "clipped surrogate L_i^a"),
    "loss_critic": ("(critic units)^2", "value loss L_i^c, without c_v"),
    "entropy": ("nat", "policy entropy H_i"),
    "ratio_clip_fraction": ("1", "share of samples cut off by the ratio clip"),
    "value_clip_fraction": ("1", "share of samples cut off by the value clip"),
    "approx_kl": ("nat", "mean of rho - 1 - log rho"),
}


def _minibatch_scalars(learner: Learner) -> dict[str, ScalarSpec]:
    specs = {name: ScalarSpec(("task",), "f8", *_PER_TASK_MEANING[name]) for name in PER_TASK}
    specs["clip_factor"] = ScalarSpec((), "f8", "1", "min(1, tau / ||(d^a, d^c)||)")
    for side in SIDES:
        specs |= combination_specs(side, learner.combiners[side])
    return specs


SNAPSHOT_SCALARS = {
    "popart_mu": ScalarSpec(("task",), "f8", "return", "PopArt mean mu_i"),
    "popart_sigma": ScalarSpec(("task",), "f8", "return", "PopArt scale sigma_i; 1 without PopArt"),
    "popart_count": ScalarSpec(("task",), "f8", "1", "value targets (Welford) or collects (EMA) behind mu_i, sigma_i"),
    "success": ScalarSpec(("task",), "f8", "1", "training success of the collect's episodes, at any step"),
    "success_ema": ScalarSpec(("task",), "f8", "1", "long moving average of the training success"),
    "episode_return": ScalarSpec(("task",), "f8", "return", "mean undiscounted return of the collect's episodes"),
}


def _git_revision() -> str | None:
    """The commit of the checkout that this code runs from, with "+" for uncommitted changes; None if installed."""
    here = Path(__file__).resolve().parents[2]  # toppo/

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    if not (here.parent / ".git").exists():
        return None  # installed, perhaps inside another repository
    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "-s", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def snapshot_bytes(parameters: int, n_tasks: int, minibatches: int) -> int:
    """Bytes of one snapshot's per-task gradients on disk. On Meta-World, float32 is compressed to 0.6 to 0.75.

    Args:
        parameters: P of actor and critic together.
        n_tasks: K.
        minibatches: number of dumped minibatches per snapshot.
    """
    return int(0.75 * 4 * parameters * n_tasks * minibatches)


class Recorder:
    """Writes the dump of one run. Its `observe` is called with every minibatch of a learner.

    Args:
        path: path of the Zarr store.
        schedule: the plan of the run.
        learner: the learner whose slabs, J (K, P) of each side, are dumped.
        environment_versions: versions of the packages behind the environments.
        committed: numbers of snapshots and of streamed collects at the checkpoint to go on from; None for a new dump.
    """

    def __init__(
        self,
        path: Path,
        schedule: Schedule,
        learner: Learner,
        environment_versions: Mapping[str, str],
        committed: tuple[int, int] | None,
    ) -> None:
        self._schedule, self._learner = schedule, learner
        self._collect = 0
        self._entries: dict[str, list[np.ndarray]] = {}
        if committed is None:
            self._writer = DumpWriter.create(
                path,
                tasks=list(learner.tasks),
                sides={side: learner.slabs[side].layout for side in SIDES},
                snapshots=len(schedule.snapshots),
                minibatches=schedule.config.dump_minibatches,
                minibatch_scalars=_minibatch_scalars(learner),
                snapshot_scalars=SNAPSHOT_SCALARS,
                slabs=schedule.config.dump_slabs and bool(schedule.snapshots),  # no buffers if nothing is dumped
                keepbits=schedule.config.dump_keepbits,
                stream=(schedule.collects, len(schedule.streamed_minibatches)),
                attrs=_attributes(schedule, learner, environment_versions),
                layer_grams=True,
                step=ENV_STEPS,
            )
        else:
            self._writer = DumpWriter.resume(path, snapshots=committed[0], stream=committed[1])
        self._by_layer = self._writer.layer_grams  # a run that an earlier version began keeps to its dump

    def begin(self, collect: int) -> None:
        """Start the updates of a collect."""
        self._collect = collect
        self._entries = {side: [] for side in SIDES}

    def observe(self, update: MinibatchUpdate) -> None:
        """Record this minibatch in the Gram stream and in the snapshot, if the schedule asks for it."""
        if update.index % self._schedule.config.gram_every == 0:
            for side in SIDES:
                self._entries[side].append(update.sides[side].gram)
        if self._collect in self._schedule.snapshots and update.index in self._schedule.dumped_minibatches:
            self._writer.record_minibatch(
                self._schedule.dumped_minibatches.index(update.index),
                slabs={side: self._learner.slabs[side].rows() for side in SIDES if self._schedule.config.dump_slabs},
                grams={side: update.sides[side].gram for side in SIDES},
                layer_grams={side: self._learner.slabs[side].layer_grams() for side in SIDES if self._by_layer},
                scalars=_scalars(update),
            )
        else:
            self._writer.start_writing()

    def finish(self, env_steps: int, scalars: Mapping[str, np.ndarray]) -> None:
        """End the updates of a collect: hand over its Grams, and commit its snapshot if it has one."""
        self._writer.record_stream(
            self._collect - 1,
            grams={side: np.stack(grams) for side, grams in self._entries.items()},
            step=env_steps,
        )
        if self._collect in self._schedule.snapshots:
            self._writer.commit_snapshot(step=env_steps, collect=self._collect, scalars=scalars)

    def after_commit(self, action: Callable[[], object]) -> None:
        """Run `action` in the background after everything handed over so far is committed."""
        self._writer.call_after_commit(action)

    def flush(self) -> None:
        """Wait until everything handed over so far is written."""
        self._writer.flush()

    def close(self) -> None:
        """Write the rest, and mark the dump complete."""
        self._writer.close()

    def abandon(self) -> None:
        """Write what was handed over so far, and leave the dump open for a resume."""
        self._writer.abandon()


def _scalars(update: MinibatchUpdate) -> dict[str, Any]:
    scalars: dict[str, Any] = {**update.per_task, "clip_factor": update.clip_factor}
    for side, s in update.sides.items():
        scalars |= combination_scalars(side, s.combination, s.order)
    return scalars


def _attributes(schedule: Schedule, learner: Learner, environment_versions: Mapping[str, str]) -> dict[str, Any]:
    packages = ("toppo", "torch", "numpy", "scipy", "zarr")
    return {
        "config": {k: v for k, v in schedule.config.to_dict().items() if v is not None},
        "seed": schedule.config.seed,
        "versions": {**{name: version(name) for name in packages}, **environment_versions},
        "git_revision": _git_revision(),
        "combiners": {side: learner.combiners[side].spec for side in SIDES},
        "gradient_scale": learner.gradient_scale,
        "value_coef": schedule.config.value_coef,
        "env_steps_per_collect": schedule.config.env_steps_per_collect,
        "updates_per_collect": schedule.updates,
        "streamed_minibatches": list(schedule.streamed_minibatches),
        "dumped_minibatches": list(schedule.dumped_minibatches),
    }

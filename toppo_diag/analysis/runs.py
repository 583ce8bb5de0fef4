"""Runs for tables and curves: the success of each task at each evaluation, and the configuration of the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners import parse_spec
from toppo_diag.analysis.tasks import resolve
from toppo_diag.errors import DiagnosticError, UsageError

RUNGS = (
    "Vanilla MT-PPO",
    "+ LN-c",
    "+ LN-c + PopArt",
    "+ LN-c + FG-c",
    "+ LN-c + PopArt + FG-c",
    "TOPPO",
)
"""The paper's ladder, in the order of its tables (D.5 to D.7, D.10)."""

METHOD = ("layernorm", "popart", "actor_combiner", "critic_combiner")
SAME_RUN = (
    *("seed", "device", "workers", "env_steps", "env_steps_per_epoch", "eval_every_epochs"),
    *("dump_every", "dump_minibatches", "dump_slabs", "dump_keepbits", "gram_every"),
)
"""Settings that say where a run ran, how long, and what it recorded. They do not change the method or its training."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run and its evaluations.

    Attributes:
        path: the path that the user gave.
        name: the name of the run's directory, or of its archive without .h5.
        config: the configuration of the run.
        benchmark: MT10, MT50, or task names separated by commas.
        reward: "v1" or "v2".
        seed: the run's seed.
        tasks: K names.
        env_steps: environment steps over all tasks at each evaluation, increasing, (S,).
        success: success rate of each task at each evaluation (Section B.1), 0 to 1, (S, K).
        method: the paper's name of the configuration (rung), or a name that lists its parts; see `method_name`.
        label: the method, and in brackets the settings in which the run differs from other given runs of this method.
        env_steps_planned: environment steps that the run is to take.
    """

    path: str
    name: str
    config: Mapping[str, Any]
    benchmark: str
    reward: str
    seed: int
    tasks: tuple[str, ...]
    env_steps: Int[np.ndarray, "S"]
    success: Float[np.ndarray, "S K"]
    method: str
    label: str
    env_steps_planned: int

    @property
    def complete(self) -> bool:
        """Whether the run was evaluated at the end of its own budget."""
        return int(self.env_steps[-1]) >= self.env_steps_planned

    @property
    def setting(self) -> tuple[str, str]:
        """Benchmark and reward. All runs of a figure or table column have the same."""
        return self.benchmark, self.reward


@dataclass(frozen=True, eq=False)
class Aligned:
    """Runs of one label, cut to the evaluations that all of them have.

    Attributes:
        label: the runs' label.
        method: the label without the settings in brackets.
        benchmark: the runs' benchmark.
        reward: the runs' reward version.
        config: the configuration of the first run. The others differ in their seed and in `SAME_RUN` settings alone.
        seeds: n seeds, increasing.
        tasks: K names.
        env_steps: environment steps of the common evaluations, (S,).
        success: success rates, 0 to 1, (S, n, K).
        notes: which runs are incomplete, and which were cut because another is shorter, one line each.
    """

    label: str
    method: str
    benchmark: str
    reward: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    env_steps: Int[np.ndarray, "S"]
    success: Float[np.ndarray, "S n K"]
    notes: tuple[str, ...]

    @property
    def setting(self) -> tuple[str, str]:
        """Benchmark and reward."""
        return self.benchmark, self.reward

    @property
    def last_step(self) -> int:
        """Environment steps at the last common evaluation."""
        return int(self.env_steps[-1])

    @property
    def curves(self) -> Float[np.ndarray, "S n"]:
        """Mean success over the tasks, one curve for each seed."""
        return np.asarray(self.success.mean(axis=-1))


def labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs with new labels, such that two runs of one label differ only in their seed.

    Raises:
        UsageError: the same run is given twice.
    """
    runs = _told_apart(runs)
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = (*run.setting, run.label, run.seed)
        if key in seen:
            raise UsageError(
                f"{seen[key].path} and {run.path} are both seed {run.seed} of {run.label} on {run.benchmark}; "
                "leave one out"
            )
        seen[key] = run
    return runs


def method_name(config: Mapping[str, Any], path: str = "this run") -> str:
    """The paper's name of a configuration (Section 5.2), or a name of its parts, such as "PopArt + FG-c (a: pcgrad)".

    FG-c stands for FairGrad at alpha = 1 on the critic. Other combiners are named with their side (a for the actor, c
    for the critic), and with those of their options that are not the default.

    Args:
        config: layernorm, popart, actor_combiner, critic_combiner, as in config.toml.
        path: the run's path, for messages.

    Raises:
        DiagnosticError: a combiner that does not exist.
    """
    try:
        actor, critic = (combiner_name(str(config[f"{side}_combiner"])) for side in ("actor", "critic"))
    except ValueError as error:
        raise DiagnosticError(f"{path}: config.toml: {error}") from None
    parts = []
    if config["layernorm"] != "none":
        parts.append("LN-c" if config["layernorm"] == "critic" else "LN-ac")
    if config["popart"] != "off":
        parts.append("PopArt" if config["popart"] == "welford" else f"PopArt-{config['popart']}")
    if critic == "fairgrad":
        parts.append("FG-c")
    sides = [
        f"{letter}: {name}"
        for letter, name, plain in (("a", actor, ("mean",)), ("c", critic, ("mean", "fairgrad")))
        if name not in plain
    ]
    if parts == ["LN-c", "PopArt", "FG-c"] and sides == ["a: pcgrad"]:
        return "TOPPO"
    stem = " + ".join(parts) or "Vanilla MT-PPO"
    if sides:
        return f"{stem} ({', '.join(sides)})"
    return f"+ {stem}" if f"+ {stem}" in RUNGS else stem


def combiner_name(spec: str) -> str:
    """A combiner's spec without the options that are its defaults: "mean", "fairgrad alpha=2"."""
    kind, options = parse_spec(spec)
    defaults = {f.name: f.default for f in fields(kind)}
    given = ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in options.items()
        if value != defaults[key]
    )
    return f"{kind.name} {given}".rstrip()


def canonical_method(name: str) -> str:
    """A method's name as `method_name` writes it: options of its combiners that are the defaults are left out.

    A name of another form is returned as it is.
    """
    found = re.fullmatch(r"(.*) \(((?:a|c): .*)\)", name)
    if found is None:
        return name
    sides = []
    for side in re.split(r", (?=[ac]: )", found[2]):
        letter, spec = side.split(": ", 1)
        try:
            sides.append(f"{letter}: {combiner_name(spec.replace(', ', ',').replace(' ', ':', 1))}")
        except ValueError:
            return name
    return f"{found[1]} ({', '.join(sides)})"


def of_tasks(run: Run, names: Sequence[str]) -> Run:
    """The run with some of its tasks alone; without names, the whole run.

    Its benchmark says so, because the paper's numbers are of whole benchmarks.

    Raises:
        UsageError: a task that the run does not have, or one that is named twice.
    """
    kept = resolve(names, run.tasks, run.path)
    whole = len(kept) == len(run.tasks)
    return replace(
        run,
        benchmark=run.benchmark if whole else f"{len(kept)} of {len(run.tasks)} tasks of {run.benchmark}",
        tasks=tuple(run.tasks[i] for i in kept),
        success=run.success[:, kept],
    )


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by label, sorted by seed. The paper's rungs come first, in its order. The others follow by name."""

    def order(run: Run) -> tuple[int, str, int]:
        return RUNGS.index(run.method) if run.method in RUNGS else len(RUNGS), run.label, run.seed

    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=order):
        groups.setdefault(run.label, []).append(run)
    return groups


def one_setting(runs: Sequence[Run]) -> tuple[str, str]:
    """The benchmark and reward that all runs share.

    Raises:
        UsageError: the runs do not share them.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.setting != first.setting or run.tasks != first.tasks:
            raise UsageError(
                f"{first.path} is a run on {first.benchmark} under {first.reward} rewards, and {run.path} on "
                f"{run.benchmark} under {run.reward}; give runs of one benchmark and reward at a time"
            )
    return first.setting


def align(runs: Sequence[Run]) -> Aligned:
    """Runs of one label (with different seeds), cut to the evaluations that all of them have.

    Raises:
        UsageError: runs of different benchmarks or rewards.
        DiagnosticError: no evaluation in common.
    """
    one_setting(runs)
    runs = sorted(runs, key=lambda run: run.seed)
    common = set(runs[0].env_steps.tolist()).intersection(*(run.env_steps.tolist() for run in runs))
    if not common:
        raise DiagnosticError(
            f"{', '.join(run.path for run in runs)}: have no evaluation at the same step; "
            "give runs with the same evaluation schedule"
        )
    steps = np.array(sorted(common), dtype=np.int64)
    notes = []
    for run in runs:
        if not run.complete:
            notes.append(
                f"{run.name} ({run.label}, seed {run.seed}) is incomplete: evaluated up to {run.env_steps[-1]:,} of "
                f"its {run.env_steps_planned:,} steps"
            )
        if len(steps) < len(run.env_steps):
            notes.append(
                f"{run.name} ({run.label}, seed {run.seed}) is cut to the {len(steps)} of its {len(run.env_steps)} "
                f"evaluations that the other seeds have too, the last at {steps[-1]:,} of {run.env_steps[-1]:,} steps"
            )
    return Aligned(
        label=runs[0].label,
        method=runs[0].method,
        benchmark=runs[0].benchmark,
        reward=runs[0].reward,
        config=runs[0].config,
        seeds=tuple(run.seed for run in runs),
        tasks=runs[0].tasks,
        env_steps=steps,
        success=np.stack([run.success[np.isin(run.env_steps, steps)] for run in runs], axis=1),
        notes=tuple(notes),
    )


def align_each(runs: Sequence[Run]) -> list[Aligned]:
    """The runs of each label, for each benchmark and reward, aligned. The paper's rungs come first.

    Raises:
        DiagnosticError: runs of one label have no evaluation in common.
    """
    settings = list(dict.fromkeys(run.setting for run in runs))
    return [
        align(group)
        for setting in settings
        for group in by_label([run for run in runs if run.setting == setting]).values()
    ]


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with new labels. If runs of one method have different settings, their labels name these settings."""
    found = []
    for run in runs:
        alike = [other for other in runs if other.setting == run.setting and other.method == run.method]
        keys = sorted({key for other in alike for key in other.config} - {*SAME_RUN, *METHOD})
        told = [key for key in keys if any(other.config.get(key) != run.config.get(key) for other in alike)]
        suffix = ", ".join(f"{key} {run.config.get(key)}" for key in told)
        found.append(replace(run, label=f"{run.method} [{suffix}]") if told else run)
    return found

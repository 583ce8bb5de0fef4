"""One frozen, typed configuration of a run: Table B.1's values as defaults, presets as values, TOML in and out.

A `TrainConfig` is always resolved: every field is concrete. `resolve` builds one from what a user said, with the
precedence
defaults of the benchmark < preset < TOML file < options.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tomli_w

from toppo.common.errors import UsageError, unknown
from toppo.training.envs.sizes import BENCHMARK_SIZES, HORIZON

LAYERNORM = ("none", "critic", "both")
POPART = ("welford", "ema", "off")
REWARDS = ("v1", "v2")
BACKENDS = ("metaworld", "envpool")

PRESETS: dict[str, dict[str, str]] = {
    "vanilla": {"layernorm": "none", "popart": "off", "critic_combiner": "mean", "actor_combiner": "mean"},
    "ln": {"layernorm": "critic", "popart": "off", "critic_combiner": "mean", "actor_combiner": "mean"},
    "ln-popart": {"layernorm": "critic", "popart": "welford", "critic_combiner": "mean", "actor_combiner": "mean"},
    "ln-fg": {"layernorm": "critic", "popart": "off", "critic_combiner": "fairgrad", "actor_combiner": "mean"},
    "ln-popart-fg": {
        "layernorm": "critic",
        "popart": "welford",
        "critic_combiner": "fairgrad",
        "actor_combiner": "mean",
    },
    "toppo": {"layernorm": "critic", "popart": "welford", "critic_combiner": "fairgrad", "actor_combiner": "pcgrad"},
}
"""The rungs of the paper's ladder (Figure 4)."""


def _option(
    default: Any, help: str, panel: str, choices: tuple[str, ...] | None = None, stands_for: str | None = None
) -> Any:
    """A field with what the command line says of it; `stands_for` is what a default of 0 or None comes to."""
    return field(default=default, metadata={"help": help, "panel": panel, "choices": choices, "stands_for": stands_for})


@dataclass(frozen=True)
class TrainConfig:
    """Everything needed to repeat a run. The fields are the command line's options and the TOML file's keys."""

    benchmark: str = _option("MT10", "MT10, MT25, MT50, or task names separated by commas.", "Run")
    reward: str = _option("v2", "Meta-World's reward version.", "Run", REWARDS)
    backend: str = _option(
        "metaworld", "What collects: the official package, or EnvPool, quick, with goals of its own.", "Run", BACKENDS
    )
    seed: int = _option(0, "Seed of goals, networks, exploration, minibatches and combiner orders.", "Run")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.", "Run")
    workers: int = _option(
        0,
        "Environment processes; their number leaves no trace in the results.",
        "Run",
        stands_for="one a core, at most one an environment",
    )
    envs_per_task: int = _option(
        0,
        "Copies of each task's environment a collect, built anew, seeded apart.",
        "Run",
        stands_for="one an episode, at most 4 with EnvPool",
    )

    env_steps: int = _option(
        0, "Environment steps in all, over all tasks.", "Training (Table B.1)", stands_for="2,000,000 a task"
    )
    env_steps_per_epoch: int = _option(
        0, "Environment steps an epoch.", "Training (Table B.1)", stands_for="20,000 a task"
    )
    env_steps_per_collect: int = _option(
        0, "Environment steps a collect.", "Training (Table B.1)", stands_for="10,000 a task"
    )
    repeats: int = _option(16, "PPO repeats per collect.", "Training (Table B.1)")
    minibatches: int = _option(32, "Stratified minibatches a repeat.", "Training (Table B.1)")
    learning_rate: float = _option(3e-4, "Adam's learning rate, constant.", "Training (Table B.1)")
    adam_eps: float = _option(1e-8, "Adam's epsilon.", "Training (Table B.1)")
    max_grad_norm: float = _option(1.0, "Joint clip of (d^a, d^c) after aggregation.", "Training (Table B.1)")
    gamma: float = _option(0.99, "Discount.", "Training (Table B.1)")

    gae_lambda: float = _option(0.97, "GAE lambda.", "PPO (Table B.1)")
    clip: float = _option(0.2, "Clip range epsilon, of the ratio and of the value.", "PPO (Table B.1)")
    value_clip: bool = _option(True, "Clip the value around its last (re)compute.", "PPO (Table B.1)")
    value_coef: float = _option(0.001, "Value loss weight c_v.", "PPO (Table B.1)")
    entropy_coef: float = _option(0.005, "Entropy bonus c_e.", "PPO (Table B.1)")
    normalise_advantage: bool = _option(True, "Normalise advantages per task and minibatch.", "PPO (Table B.1)")
    recompute: bool = _option(
        True, "Recompute values and advantages before every repeat after the first.", "PPO (Table B.1)"
    )

    hidden: tuple[int, ...] = _option(
        (400, 400, 400), "Hidden widths of actor and critic, separated by commas.", "Method"
    )
    layernorm: str = _option("critic", "Where LayerNorm goes.", "Method", LAYERNORM)
    popart: str = _option("welford", "Statistics of PopArt.", "Method", POPART)
    popart_sigma_min: float = _option(1e-2, "Lower bound of PopArt's sigma.", "Method")
    popart_beta: float = _option(0.1, "Rate a collect of --popart ema.", "Method")
    actor_combiner: str = _option("pcgrad", "Combiner of the actor's gradients: NAME[:option=value,...].", "Method")
    critic_combiner: str = _option("fairgrad", "Combiner of the critic's gradients: NAME[:option=value,...].", "Method")

    eval_every_epochs: int = _option(2, "Epochs between evaluations; one more at the start.", "Evaluation")
    eval_episodes: int = _option(50, "Episodes a task an evaluation: each goal once, at most 50.", "Evaluation")

    dump_every: int | None = _option(
        None, "Collects between gradient snapshots; without it only Grams are recorded.", "Dump"
    )
    dump_minibatches: int = _option(5, "Minibatches dumped a snapshot, evenly spread over the update phase.", "Dump")
    dump_slabs: bool = _option(True, "Record the gradients themselves, or their Grams alone.", "Dump")
    dump_keepbits: int | None = _option(None, "Mantissa bits of the dumped gradients to keep, 1 to 23.", "Dump")
    gram_every: int = _option(0, "Minibatches between entries of the Gram stream.", "Dump", stands_for="one a repeat")

    @property
    def n_tasks(self) -> int:
        """K."""
        return BENCHMARK_SIZES.get(self.benchmark) or len(self.benchmark.split(","))

    def to_toml(self) -> str:
        """The configuration as TOML, every key explicit but those that are off."""
        return tomli_w.dumps({k: v for k, v in self.to_dict().items() if v is not None})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


ADDED = {"backend": "metaworld"}
"""Keys that runs of earlier versions lack, and what they ran with."""

FIELDS = {f.name: f for f in dataclasses.fields(TrainConfig)}
TYPES: dict[str, Any] = get_type_hints(TrainConfig)

STEPS_PER_TASK = {"env_steps": 2_000_000, "env_steps_per_epoch": 20_000, "env_steps_per_collect": 10_000}
"""Table B.1's budgets divided by K; 20M / 200,000 / 100,000 on MT10 and 100M / 1,000,000 / 500,000 on MT50."""


def resolve(options: Mapping[str, Any], *, preset: str | None = None, file: Path | None = None) -> TrainConfig:
    """The configuration a user asked for.

    Args:
        options: fields given explicitly; None means not given.
        preset: a rung of the ladder, by name.
        file: TOML file of fields (and, if it likes, `preset`).

    Raises:
        UsageError: an unknown preset or key (the closest is named), a value of the wrong type or out of range.
    """
    values = read_toml(file) if file else {}
    preset = preset or values.pop("preset", None)
    values.pop("preset", None)
    if preset is not None:
        if preset not in PRESETS:
            raise unknown("preset", str(preset), PRESETS)
        values = {**PRESETS[preset], **values}
    values |= {k: v for k, v in options.items() if v is not None}
    return from_dict(values)


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """A resolved configuration from plain values; fields that depend on the benchmark are filled in.

    Raises:
        UsageError: see `resolve`.
    """
    for key in values:
        if key not in FIELDS:
            raise unknown("configuration key", key, [*FIELDS, "preset"])
    for key in ("workers", "envs_per_task", "gram_every", *STEPS_PER_TASK):  # 0 is what stands for "not given"
        if key in values and values[key] == 0:
            raise UsageError(f"{_flag(key)} 0: must be at least 1; leave it out for the default")
    config = TrainConfig(**{key: _typed(key, value) for key, value in values.items()})
    config = dataclasses.replace(config, benchmark=",".join(part.strip() for part in config.benchmark.split(",")))
    k = config.n_tasks
    filled: dict[str, Any] = {key: getattr(config, key) or per_task * k for key, per_task in STEPS_PER_TASK.items()}
    filled["actor_combiner"] = _combiner(config.actor_combiner, k, config.seed, on_actor=True)
    filled["critic_combiner"] = _combiner(config.critic_combiner, k, config.seed, on_actor=False)
    filled["gram_every"] = config.gram_every or config.minibatches
    filled["envs_per_task"] = config.envs_per_task or _copies(config.backend, filled["env_steps_per_collect"], k)
    filled["workers"] = config.workers or min(os.cpu_count() or 1, k * filled["envs_per_task"])
    config = dataclasses.replace(config, **filled)
    _check(config)
    return config


def _copies(backend: str, env_steps_per_collect: int, n_tasks: int) -> int:
    """Environments of a task that together play its episodes of a collect: one each, so that they can be shared out. Of
    EnvPool's, which take 20 MB each and have threads of their own, a few do.
    """
    episodes, rest = divmod(env_steps_per_collect, n_tasks * HORIZON)
    if rest or episodes < 1:
        return 1  # the budget is refused later
    return math.gcd(episodes, 4) if backend == "envpool" else episodes


def _typed(key: str, value: Any) -> Any:
    """The value as the field's type, or a UsageError that names the key; TOML integers pass for floats, lists for
    tuples.
    """
    kind = TYPES[key]
    if get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and all(type(v) is int for v in value):
            return tuple(value)
        raise UsageError(f"{key} = {value!r}: give a list of integers")
    accepted = get_args(kind) or (kind,)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key} = {value}: give a finite number")
    if isinstance(value, bool) != (bool in accepted) or not isinstance(value, accepted):
        wanted = " or ".join(t.__name__ for t in accepted if t is not type(None))
        raise UsageError(f"{key} = {value!r}: give a value of type {wanted}")
    return value


def _combiner(spec: str, n_tasks: int, seed: int, on_actor: bool) -> str:
    """The spec with its defaults made explicit: FairGrad's alpha of this side (Table B.1), CAGrad's c (Section B.4),
    the run's seed and, for the actor's losses of either sign, loss=raw of TaskForce.
    """
    from toppo.combiners import CAGrad, FairGrad, FairGradPaper, TaskForce, parse_spec  # scipy: too slow for --help

    try:
        kind, options = parse_spec(spec)
        if kind in (FairGrad, FairGradPaper):
            options.setdefault("alpha", 2.0 if on_actor else 1.0)
        if kind is CAGrad:
            options.setdefault("c", 0.9 if n_tasks <= 10 else 0.5)
        if kind is TaskForce:
            options.setdefault("seed", seed)
            if on_actor and options.setdefault("loss", "raw") == "log":
                raise ValueError("--actor-combiner taskforce:loss=log: PPO's actor losses are of either sign; loss=raw")
        combiner = kind(**options)
        combiner.check_use(n_tasks)
        return combiner.spec
    except ValueError as error:
        raise UsageError(str(error)) from None


_AT_LEAST_ONE = (
    *("envs_per_task", "env_steps", "env_steps_per_epoch", "env_steps_per_collect", "repeats", "minibatches"),
    *("eval_every_epochs", "eval_episodes", "dump_minibatches", "gram_every"),
)


def _check(config: TrainConfig) -> None:
    for key, f in FIELDS.items():
        choices = f.metadata["choices"]
        if choices and getattr(config, key) not in choices:
            raise unknown(key, getattr(config, key), choices)
    for key in _AT_LEAST_ONE:
        if getattr(config, key) < 1:
            raise UsageError(f"{_flag(key)} {getattr(config, key)}: must be at least 1")
    if config.dump_every is not None and config.dump_every < 1:
        raise UsageError(f"--dump-every {config.dump_every}: must be at least 1; leave it out to record no snapshots")
    for key in ("workers", "seed"):
        if getattr(config, key) < 0:
            raise UsageError(f"{_flag(key)} {getattr(config, key)}: must not be negative")
    for key in ("learning_rate", "adam_eps", "max_grad_norm", "clip", "value_coef", "popart_sigma_min"):
        if not getattr(config, key) > 0:
            raise UsageError(f"{_flag(key)} {getattr(config, key)}: must be positive")
    for key in ("gamma", "gae_lambda"):
        if not 0 <= getattr(config, key) <= 1:
            raise UsageError(f"{_flag(key)} {getattr(config, key)}: must lie between 0 and 1")
    if not 0 < config.popart_beta <= 1:
        raise UsageError(f"--popart-beta {config.popart_beta}: must lie above 0 and at most at 1")
    if config.entropy_coef < 0:
        raise UsageError(f"--entropy-coef {config.entropy_coef}: must not be negative")
    if not config.hidden or min(config.hidden) < 1:
        raise UsageError(f"--hidden {list(config.hidden)}: give at least one positive width")
    if (config.backend, config.reward) == ("envpool", "v1"):
        raise UsageError("--backend envpool --reward v1: EnvPool has V2 rewards only; give --backend metaworld")
    if config.eval_episodes > 50:
        raise UsageError(
            f"--eval-episodes {config.eval_episodes}: a task has 50 goals, each is evaluated once; give at most 50"
        )
    updates = config.repeats * config.minibatches
    if config.dump_minibatches > updates:
        raise UsageError(
            f"--dump-minibatches {config.dump_minibatches}: an update phase has only {updates} minibatches"
        )
    if config.dump_keepbits is not None and not (config.dump_slabs and 1 <= config.dump_keepbits <= 23):
        raise UsageError(f"--dump-keepbits {config.dump_keepbits}: must lie between 1 and 23, and needs --dump-slabs")
    if config.gram_every > updates:
        raise UsageError(f"--gram-every {config.gram_every}: an update phase has only {updates} minibatches")
    names = config.benchmark.split(",")
    if len(set(names)) < len(names):
        raise UsageError(f"--benchmark {config.benchmark}: a task is named twice")


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")

"""The configuration of a run: one frozen, typed class with the defaults of the paper's Table B.1, presets, and TOML.

A `TrainConfig` is always complete: every field has its final value. `resolve` builds one from several sources. An
option given explicitly wins over a TOML file, the file over a preset, and the preset over the benchmark's defaults.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tomli_w

from toppo.common.errors import UsageError, bad_option, quoted, shown, unknown
from toppo.training.envs.sizes import BENCHMARK_SIZES, HORIZON, N_GOALS

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
"""The rungs (variants) of the paper's ladder from plain multi-task PPO to TOPPO (Figure 4), each with its options."""


def _option(
    default: Any, help: str, panel: str, choices: tuple[str, ...] | None = None, stands_for: str | None = None
) -> Any:
    """A field of the configuration, with its help text for the command line.

    Args:
        default: value of the field when it is not given; 0 or None where the value follows from other fields.
        help: one sentence. Options in backticks become flags on the command line.
        panel: the heading that lists the field.
        choices: allowed values of the field, where they can be listed.
        stands_for: what a default of 0 means.
    """
    return field(default=default, metadata={"help": help, "panel": panel, "choices": choices, "stands_for": stands_for})


_RUN = "Run"
_TRAINING = "Training (Table B.1 of the paper)"
_PPO = "PPO (Table B.1 of the paper)"
_METHOD = "Method"
_EVALUATION = "Evaluation"
_DUMP = "Dump of the gradients"


@dataclass(frozen=True)
class TrainConfig:
    """All settings of one run. The fields are the options of the command line and the keys of the TOML file.

    Fields that are left out get the paper's values for the benchmark. In the fields of `FROM_OTHERS`, 0 also means
    "left out". `hidden` and `benchmark` take a list, or text as on the command line. The combiner fields take a spec (a
    text such as "fairgrad:alpha=1") or a combiner.

    Raises:
        UsageError: a value has the wrong type or is out of range, or a combiner is wrong.

    >>> config = TrainConfig(benchmark=["reach-v3", "push-v3"], hidden="400,400", popart="off")
    >>> config.benchmark, config.hidden, config.env_steps
    ('reach-v3,push-v3', (400, 400), 4000000)
    """

    benchmark: str = _option(
        "MT10",
        "The tasks: MT10, MT25, MT50, or names of Meta-World tasks separated by commas, such as reach,push.",
        _RUN,
    )
    reward: str = _option("v2", "Version of Meta-World's reward functions.", _RUN, REWARDS)
    backend: str = _option(
        "metaworld",
        "Simulator for training: the official Meta-World package, or EnvPool, which draws its own goals. Evaluations "
        "always use the official package.",
        _RUN,
        BACKENDS,
    )
    seed: int = _option(0, "Seed of all random numbers: goals, networks, exploration, minibatches and combiners.", _RUN)
    device: str = _option("auto", "Where the networks are trained: auto, cpu, cuda or cuda:N.", _RUN)
    workers: int = _option(
        0,
        "Number of environment processes. It does not change the results.",
        _RUN,
        stands_for="one per core, at most one per environment",
    )
    envs_per_task: int = _option(
        0,
        "Environments per task in each collect (one rollout phase); every environment has its own seed.",
        _RUN,
        stands_for="one per episode, at most 4 with EnvPool",
    )

    env_steps: int = _option(
        0,
        "Length of the run in environment steps, all tasks together.",
        _TRAINING,
        stands_for="2,000,000 per task",
    )
    env_steps_per_epoch: int = _option(
        0,
        "Environment steps per epoch, all tasks together. Epochs only set how often the policy is evaluated.",
        _TRAINING,
        stands_for="20,000 per task",
    )
    env_steps_per_collect: int = _option(
        0,
        "Environment steps per collect (one rollout phase), all tasks together.",
        _TRAINING,
        stands_for="10,000 per task",
    )
    repeats: int = _option(16, "Passes over the data of each collect.", _TRAINING)
    minibatches: int = _option(
        32, "Minibatches per pass. Every minibatch has equally many samples of each task.", _TRAINING
    )
    learning_rate: float = _option(3e-4, "Learning rate of Adam; it stays constant.", _TRAINING)
    adam_eps: float = _option(1e-8, "Epsilon of Adam.", _TRAINING)
    max_grad_norm: float = _option(
        1.0, "Largest norm of an update's direction; actor and critic are clipped together.", _TRAINING
    )
    gamma: float = _option(0.99, "Discount factor of the return.", _TRAINING)

    gae_lambda: float = _option(0.97, "Lambda of generalised advantage estimation (GAE).", _PPO)
    clip: float = _option(0.2, "Clip range of PPO's probability ratio, and of the value.", _PPO)
    value_clip: bool = _option(True, "Clip the value loss around the values that were computed last.", _PPO)
    value_coef: float = _option(0.001, "Weight of the value loss.", _PPO)
    entropy_coef: float = _option(0.005, "Weight of the entropy bonus.", _PPO)
    normalise_advantage: bool = _option(True, "Normalise the advantages per task in each minibatch.", _PPO)
    recompute: bool = _option(True, "Recompute values and advantages before every pass after the first.", _PPO)

    hidden: tuple[int, ...] = _option(
        (400, 400, 400), "Widths of the hidden layers of actor and critic, separated by commas.", _METHOD
    )
    layernorm: str = _option("critic", "Which networks have layer normalisation.", _METHOD, LAYERNORM)
    popart: str = _option(
        "welford",
        "PopArt, which normalises the critic's targets per task: statistics over the whole run (welford), moving "
        "averages (ema), or none (off).",
        _METHOD,
        POPART,
    )
    popart_sigma_min: float = _option(1e-2, "Smallest standard deviation that PopArt divides by.", _METHOD)
    popart_beta: float = _option(0.1, "Rate of PopArt's moving averages per collect, for `popart=ema`.", _METHOD)
    actor_combiner: str = _option(
        "pcgrad",
        "Method that combines the actor's per-task gradients into one direction: NAME[:option=value,...], such as "
        "mean, pcgrad or cagrad:c=0.4.",
        _METHOD,
    )
    critic_combiner: str = _option(
        "fairgrad",
        "Method that combines the critic's per-task gradients into one direction: NAME[:option=value,...], such as "
        "mean, pcgrad or cagrad:c=0.4.",
        _METHOD,
    )

    eval_every_epochs: int = _option(
        2, "Epochs between evaluations. There is also one at the start and one at the end.", _EVALUATION
    )
    eval_episodes: int = _option(
        50, f"Episodes per task in each evaluation, each with another goal; at most {N_GOALS}.", _EVALUATION
    )

    dump_every: int | None = _option(
        None,
        "Collects between two snapshots of the per-task gradients. Without it, only Grams (the gradients' scalar "
        "products) are recorded.",
        _DUMP,
    )
    dump_minibatches: int = _option(
        5, "Minibatches in each snapshot, spread evenly over the updates of the collect.", _DUMP
    )
    dump_slabs: bool = _option(
        True, "Record the per-task gradients themselves (slabs) in each snapshot, not only their Grams.", _DUMP
    )
    dump_keepbits: int | None = _option(
        None, "Bits of the mantissa to keep in dumped gradients, 1 to 23. Fewer bits take less disk.", _DUMP
    )
    gram_every: int = _option(0, "Minibatches between two recorded Grams.", _DUMP, stands_for="one Gram per pass")

    def __post_init__(self) -> None:
        for key in FIELDS:
            object.__setattr__(self, key, _typed(key, getattr(self, key)))
        for key, value in _filled(self).items():
            object.__setattr__(self, key, value)
        _check(self)

    @property
    def n_tasks(self) -> int:
        """Number of tasks, K."""
        return BENCHMARK_SIZES.get(self.benchmark) or len(self.benchmark.split(","))

    def to_toml(self) -> str:
        """The configuration as TOML, with every key except those that are None."""
        return tomli_w.dumps({k: v for k, v in self.to_dict().items() if v is not None})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dictionary of plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


ADDED = {"backend": "metaworld"}
"""Keys that runs of earlier versions lack, with the values that those runs had."""

FIELDS = {f.name: f for f in dataclasses.fields(TrainConfig)}
TYPES: dict[str, Any] = get_type_hints(TrainConfig)

STEPS_PER_TASK = {"env_steps": 2_000_000, "env_steps_per_epoch": 20_000, "env_steps_per_collect": 10_000}
"""Table B.1's budgets per task: on MT10 20M, 200,000 and 100,000 steps; on MT50 100M, 1,000,000 and 500,000 steps."""

FROM_OTHERS = ("workers", "envs_per_task", "gram_every", *STEPS_PER_TASK)
"""Fields whose default of 0 stands for a value that follows from other fields."""


def resolve(
    options: Mapping[str, Any], *, preset: str | None = None, file: str | os.PathLike[str] | None = None
) -> TrainConfig:
    """The configuration that a user asked for.

    Args:
        options: fields that are given explicitly. None means that the field is not given.
        preset: name of a rung of the paper's ladder, see `PRESETS`.
        file: TOML file of fields. It can also set `preset`.

    Raises:
        UsageError: a preset or field is unknown (the message suggests the closest name), or a value is wrong.
    """
    values = read_toml(file) if file else {}
    from_file = values.pop("preset", None)
    preset = preset or from_file
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown("preset", shown(preset), PRESETS)
        values = {**PRESETS[preset], **values}
    values |= {k: v for k, v in options.items() if v is not None}
    return from_dict(values)


def read_toml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys and values of a TOML file.

    Raises:
        UsageError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{file} is not valid TOML: its arrays or tables are nested too deep") from None
    except ValueError as error:  # of TOML, of UTF-8, or a number of more digits than Python reads
        raise UsageError(f"{file} is not valid TOML: {error}") from None


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these values. Other fields get their defaults.

    Raises:
        UsageError: see `resolve`.
    """
    for key in values:
        if key not in FIELDS:
            raise unknown("option", key, [*FIELDS, "preset"])
    for key in FROM_OTHERS:
        if key in values and values[key] == 0:
            raise bad_option(key, 0, "must be at least 1; leave it out for the default")
    return TrainConfig(**values)


def _filled(config: TrainConfig) -> dict[str, Any]:
    """The fields that follow from others, and the combiners with all their options."""
    k = config.n_tasks
    filled: dict[str, Any] = {key: getattr(config, key) or per_task * k for key, per_task in STEPS_PER_TASK.items()}
    filled["actor_combiner"] = _combiner(config.actor_combiner, k, config.seed, on_actor=True)
    filled["critic_combiner"] = _combiner(config.critic_combiner, k, config.seed, on_actor=False)
    filled["gram_every"] = config.gram_every or config.minibatches
    filled["envs_per_task"] = config.envs_per_task or _copies(config.backend, filled["env_steps_per_collect"], k)
    filled["workers"] = config.workers or min(os.cpu_count() or 1, k * filled["envs_per_task"])
    return filled


def _copies(backend: str, env_steps_per_collect: int, n_tasks: int) -> int:
    """Number of environments per task: one per episode of a collect (rollout phase), so that workers can share them.

    EnvPool's environments take 20 MB each and have threads of their own. So EnvPool gets at most 4 per task.
    """
    episodes, rest = divmod(env_steps_per_collect, n_tasks * HORIZON)
    if rest or episodes < 1:
        return 1  # `plan` rejects this number of steps later
    return math.gcd(episodes, 4) if backend == "envpool" else episodes


def _typed(key: str, value: Any) -> Any:
    """The value, converted to the type of the field.

    Besides values of the type itself, it accepts integers for floats, numpy's numbers, and a torch device for its name.
    It accepts lists or text for `hidden` and `benchmark`, and a combiner in place of its spec.

    Raises:
        UsageError: any other value. The message names the field.
    """
    if key == "hidden":
        return _widths(value)
    if key == "benchmark":
        return _benchmark(value)
    if key.endswith("_combiner"):
        value = getattr(value, "spec", value)
    elif key == "device" and type(value).__module__ == "torch":
        value = str(value)
    accepted = get_args(TYPES[key]) or (TYPES[key],)
    number = not isinstance(value, bool) and isinstance(value, numbers.Real)
    if number and float in accepted:
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer larger than every float
            finite = False
        if not finite:
            raise bad_option(key, value, "give a finite number")
        value = float(value)
    elif number and isinstance(value, numbers.Integral):
        value = int(value)
    if isinstance(value, bool) != (bool in accepted) or not isinstance(value, accepted):
        wanted = " or ".join(t.__name__ for t in accepted if t is not type(None))
        raise bad_option(key, value if isinstance(value, int) else quoted(value), f"give a value of type {wanted}")
    return value


def _widths(value: Any) -> tuple[int, ...]:
    """`hidden` from "400,400", from one number or from a list of numbers."""
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, numbers.Integral) else value
    try:
        if any(isinstance(part, (bool, float)) for part in parts):
            raise ValueError
        widths = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        problem = "give a list of integers, or widths separated by commas, such as 400,400,400"
        raise bad_option("hidden", value, problem) from None
    if not widths or min(widths) < 1:
        raise bad_option("hidden", ",".join(map(shown, widths)), "give at least one width, and only positive ones")
    if max(widths) > MAX_WIDTH or len(widths) > MAX_LAYERS:
        problem = f"give at most {MAX_LAYERS} widths, and none above {MAX_WIDTH:,}"
        raise bad_option("hidden", ",".join(map(shown, widths)), problem)
    return widths


_WITHOUT_VERSION = re.compile(r"^([a-z]+(?:-[a-z]+)*)$")
"""The short name of a task, as figures print it: reach for reach-v3."""


def _benchmark(value: Any) -> str:
    """`benchmark` from text or from a list of names, without spaces and with whole names of tasks."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(part, str) for part in parts):
        raise bad_option("benchmark", quoted(value), "give MT10, MT25, MT50 or task names")
    names = [_WITHOUT_VERSION.sub(r"\1-v3", part.strip()) for part in parts]
    if not all(names):
        raise bad_option("benchmark", quoted(value), "give MT10, MT25, MT50 or task names")
    twice = [name for n, name in enumerate(names) if name in names[:n]]
    if twice:
        raise bad_option("benchmark", ",".join(names), f"{twice[0]} is named twice")
    return ",".join(names)


def _combiner(spec: str, n_tasks: int, seed: int, on_actor: bool) -> str:
    """The spec (name and options of a combiner) with all options filled in.

    Options that are not given follow the paper: FairGrad's alpha for the actor or the critic (Table B.1), and CAGrad's
    c (Section B.4). TaskForce gets the run's seed. On the actor it also gets loss=raw, because the actor's losses can
    be negative.
    """
    from toppo.combiners import CAGrad, FairGrad, FairGradPaper, TaskForce, parse_spec  # scipy: too slow for help texts

    option = "actor_combiner" if on_actor else "critic_combiner"
    try:
        kind, options = parse_spec(spec)
        for name, value in options.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            limit = MAX_SEED if name == "seed" else MAX_COMBINER_NUMBER
            if number and not -limit <= value <= limit:
                bounds = f"be at most {limit}" if name == "seed" else f"lie between -{limit:g} and {limit:g}"
                raise ValueError(f"{name} must {bounds}")
        if kind in (FairGrad, FairGradPaper):
            options.setdefault("alpha", 2.0 if on_actor else 1.0)
        if kind is CAGrad:
            options.setdefault("c", 0.9 if n_tasks <= 10 else 0.5)
        if on_actor and kind.needs_positive_losses:
            raise ValueError(
                f"PPO's actor losses can be negative, and {kind.name} needs positive ones; take another one"
            )
        if kind is TaskForce:
            options.setdefault("seed", seed)
            if on_actor and options.setdefault("loss", "raw") == "log":
                raise ValueError("PPO's actor losses can be negative, so their logarithm is undefined; give loss=raw")
        combiner = kind(**options)
        combiner.check_use(n_tasks)
        return combiner.spec
    except ValueError as error:
        raise bad_option(option, spec, shown(error, 500)) from None


MAX_SEED = 2**32 - 1
"""The largest seed that numpy's older generators accept; Meta-World draws its goals with one."""
MAX_WIDTH, MAX_LAYERS = 16_384, 100
MAX_COMBINER_NUMBER = 1e12

_AT_MOST: dict[str, float] = {
    "seed": MAX_SEED,
    "env_steps": 10**15,
    "env_steps_per_epoch": 10**15,
    "env_steps_per_collect": 10**8,
    "envs_per_task": 100_000,  # after the number that it follows from
    "workers": 4_096,
    "repeats": 10_000,
    "minibatches": 10**6,
    "eval_every_epochs": 10**9,
    "dump_every": 10**12,
    "learning_rate": 1e3,
    "adam_eps": 1e3,
    "max_grad_norm": 1e12,
    **dict.fromkeys(("clip", "value_coef", "entropy_coef", "popart_sigma_min"), 1e9),
}
"""Far above what any run needs, and low enough that no number overflows and no plan takes minutes to make."""
_LEAST_POSITIVE = 1e-30
"""Smaller numbers are 0 in float32."""

_AT_LEAST_ONE = (
    *("envs_per_task", "env_steps", "env_steps_per_epoch", "env_steps_per_collect", "repeats", "minibatches"),
    *("eval_every_epochs", "eval_episodes", "dump_minibatches", "gram_every"),
)
_POSITIVE = ("learning_rate", "adam_eps", "max_grad_norm", "clip", "value_coef", "popart_sigma_min")


def _check(config: TrainConfig) -> None:
    """Check every value against its range.

    Raises:
        UsageError: a value is out of range. The message names the first one.
    """
    for key, f in FIELDS.items():
        choices = f.metadata["choices"]
        if choices and getattr(config, key) not in choices:
            raise unknown(key, getattr(config, key), choices)
    _require(config, _AT_LEAST_ONE, lambda value: value >= 1, "must be at least 1")
    _require(config, ("workers", "seed", "entropy_coef"), lambda value: value >= 0, "must not be negative")
    _require(config, _POSITIVE, lambda value: value > 0, "must be positive")
    _require(config, _POSITIVE, lambda value: value >= _LEAST_POSITIVE, f"must be at least {_LEAST_POSITIVE:g}")
    for key, most in _AT_MOST.items():
        value = getattr(config, key)
        if value is not None and value > most:
            limit = f"{most:,}" if isinstance(most, int) else f"{most:g}"
            raise bad_option(key, value, f"must be at most {limit}")
    _require(config, ("gamma", "gae_lambda"), lambda value: 0 <= value <= 1, "must lie between 0 and 1")
    _require(config, ("popart_beta",), lambda value: 0 < value <= 1, "must lie above 0 and at most at 1")
    if config.dump_every is not None and config.dump_every < 1:
        raise bad_option("dump_every", config.dump_every, "must be at least 1; leave it out to record no snapshots")
    if (config.backend, config.reward) == ("envpool", "v1"):
        raise bad_option("reward", "v1", "EnvPool has V2 rewards only; train with `backend=metaworld`")
    if config.eval_episodes > N_GOALS:
        problem = f"each task has {N_GOALS} goals, and each goal is evaluated once; give at most {N_GOALS}"
        raise bad_option("eval_episodes", config.eval_episodes, problem)
    updates = config.repeats * config.minibatches
    for key in ("dump_minibatches", "gram_every"):
        if getattr(config, key) > updates:
            problem = f"each collect has {updates} minibatches; give at most {updates}"
            raise bad_option(key, getattr(config, key), problem)
    if config.dump_keepbits is not None and not (config.dump_slabs and 1 <= config.dump_keepbits <= 23):
        raise bad_option("dump_keepbits", config.dump_keepbits, "must lie between 1 and 23, and needs `dump_slabs`")


def _require(config: TrainConfig, keys: tuple[str, ...], fits: Callable[[Any], bool], problem: str) -> None:
    for key in keys:
        value = getattr(config, key)
        if not fits(value):
            raise bad_option(key, value, problem)

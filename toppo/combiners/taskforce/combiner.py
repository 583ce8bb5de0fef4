"""TaskForce: one agent a task learns, while the tasks train, to weigh their gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import Claims, Combination, Combiner, Record, Status, require_positive
from toppo.combiners.blas import single_thread
from toppo.combiners.gram import check_gram, check_losses
from toppo.combiners.taskforce.noise import noise_scale, ornstein_uhlenbeck
from toppo.combiners.taskforce.observation import (
    Normalisation,
    gradient_scales,
    joint_features,
    joint_gram,
    local_rows,
)
from toppo.combiners.taskforce.replay import ReplayBuffer
from toppo.combiners.taskforce.reward import imtl_reward, loss_reward, norm_reward

if TYPE_CHECKING:
    from toppo.combiners.taskforce.agents import Agents

_INIT, _NOISE, _SAMPLE = range(3)
"""Random streams, each keyed further by the number of the call: nothing of a generator is left to be saved."""


@dataclass(frozen=True)
class _Scene:
    """One Gram and its losses, as the agents see them."""

    gram: Float[np.ndarray, "K K"]
    """Of the normalised gradients."""
    scales: Float[np.ndarray, "K"]
    """What each gradient was divided by."""
    losses: Float[np.ndarray, "K"]
    """log L, or L with loss=raw."""
    joint: Float[np.ndarray, "D"]
    """The joint observation."""


@dataclass
class _Memory:
    """All that moves from call to call."""

    agents: Agents
    buffer: ReplayBuffer
    noise: Float[np.ndarray, "K"]
    calls: int
    before: Float[np.ndarray, "K"]
    """The losses of the open transition, as seen."""
    gradient_reward: float
    """Its r_G."""
    open: bool
    """Whether a transition waits for the observation that ends it."""
    rewards: Float[np.ndarray, "3"]
    """R, r_L, r_G of the last whole transition; NaN before there is one."""

    numbers: ClassVar[tuple[str, ...]] = ("noise", "calls", "before", "gradient_reward", "open", "rewards_last")


@dataclass
class TaskForce(Combiner):
    """TaskForce: cooperative agents, one a task, learn to weigh the tasks (MADDPG; Lowe et al., NeurIPS 2017).

    Agent t sees o_t = [g_t.g_1 ... g_t.g_K | log L_t] (Equation 15 of TaskForce's appendix) of the normalised
    gradients, and answers with an action a_t in [-1, 1]; the weights are w = softmax(sharpness a), and the step G =
    sum_t w_t g_t. The next observation pays all agents alike, R = lambda_l r_L + r_G. Weights positive, summing to 1.

    What the appendix leaves open, and what is done here. r_L is the mean over tasks of the drop in log loss. r_G is
    taken of the normalised gradients, so that lambda_g means the same at every scale. The normalisation is for the
    agents' eyes, as in MGDA's code: the step is made of the gradients as they are (step=normalised divides them, and
    then the weights on g_t do not sum to 1). The softmax and the bound of the action are ours: sharpness = 3 lets one
    weight be 400 times another. Ornstein-Uhlenbeck noise has theta = 0.15, sigma = 0.2 of DDPG, times a scale that goes
    from noise_start to noise_end in noise_steps calls; noisy actions are cut off at -1 and 1. Reward normalisation is
    by mean and deviation of all rewards in the buffer. Actors climb their critic with the other actions as replayed,
    at the critic before its own step; networks have ReLU and a tanh at the actor's end, which starts at +-0.003. The
    symmetric Gram enters the joint observation once, as its upper triangle. Learning starts at `batch` transitions.

    The losses must be positive, or loss=raw observes and rewards L itself: that is what the PPO actor's losses need,
    and `toppo train` takes it there by itself. `Combination.reports` has R, r_L, r_G of the transition that this call's
    observation ended (with strategy=same: that `after` ended last); NaN before there is one.

    State: parameters, targets and Adam of the networks, the replay buffer, the noise, the open transition and the
    number of calls, which keys all randomness. A full buffer at K = 50 is half a gigabyte; less with `buffer`.

    Options:
        r_g: r_G; norm is -||G||^2, imtl is Equation 23, none leaves it out.
        lambda_l: lambda_L, weight of r_L, >= 0.
        lambda_g: lambda_G, weight of r_g=norm, >= 0.
        lambda_imtl: lambda_G of r_g=imtl, >= 0.
        agents: how far along the ablation of Appendix A. single: one agent (DDPG), mu(O) and Q(O, A). ma: mu_t(O) and
            Q_t(O, a_t). ct: mu_t(O) and Q_t(O, A). de: mu_t(o_t) and Q_t(O, A).
        critics: own, one critic a task; shared, one for all of them, which R being the same for all allows: without it
            the critics of K tasks cost K^3.
        observation: gram, or raw gradients (Equation 14), which `show` must then be handed before each call.
        strategy: next, the next call's Gram and losses end a transition (Strategy 1); same, the same batch's after the
            step do (Strategy 2, Algorithm 2), handed to `after`.
        every: transitions between updates of the agents, >= 1.
        normalise: of the gradients (see `gradient_scales`): l2, loss, loss+, none.
        loss: log, or raw for losses that can be zero or negative.
        step: raw, G = sum w_t g_t; normalised, G = sum w_t g_t / scale_t.
        sharpness: of the softmax, > 0.
        hidden: width of the two hidden layers.
        lr: Adam's learning rate, of actors and critics.
        batch: transitions an update.
        buffer: transitions kept, at least `batch`.
        tau: rate of the targets, in (0, 1].
        gamma: discount, in [0, 1).
        noise_start, noise_end: scale of the noise, >= 0.
        noise_steps: calls from the one to the other, >= 1.
        seed: of networks, noise and sampling; in `toppo train`, the run's unless given.
    """

    name: ClassVar[str] = "taskforce"
    needs_losses: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = (
        *("parameters", "targets", "first_moment", "second_moment", "adam_steps"),
        *ReplayBuffer.names,
        *_Memory.numbers,
    )
    reports: ClassVar[Mapping[str, str]] = {
        "reward": "R of the transition that ended with this observation",
        "reward_loss": "its r_L, mean drop of the (log) loss",
        "reward_gradient": "its r_G",
    }

    r_g: Literal["norm", "imtl", "none"] = "norm"
    lambda_l: float = 1.0
    lambda_g: float = 1e-3
    lambda_imtl: float = 1.0
    agents: Literal["single", "ma", "ct", "de"] = "de"
    critics: Literal["own", "shared"] = "own"
    observation: Literal["gram", "raw"] = "gram"
    strategy: Literal["next", "same"] = "next"
    every: int = 1
    normalise: Normalisation = "l2"
    loss: Literal["log", "raw"] = "log"
    step: Literal["raw", "normalised"] = "raw"
    sharpness: float = 3.0
    hidden: int = 64
    lr: float = 5e-4
    batch: int = 64
    buffer: int = 100_000
    tau: float = 0.01
    gamma: float = 0.95
    noise_start: float = 0.3
    noise_end: float = 0.05
    noise_steps: int = 10_000
    seed: int = 0

    _mind: _Memory | None = field(default=None, init=False, repr=False, compare=False)
    _shown: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positive = ("every", "sharpness", "hidden", "lr", "batch", "buffer", "noise_steps")
        require_positive(self.name, **{name: getattr(self, name) for name in positive})
        for name in ("lambda_l", "lambda_g", "lambda_imtl", "noise_start", "noise_end", "seed"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{self.name}: {name} must be a finite number >= 0, not {value!r}")
        if not 0 < self.tau <= 1:
            raise ValueError(f"{self.name}: tau must lie above 0 and at most at 1, not {self.tau!r}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"{self.name}: gamma must lie in [0, 1), not {self.gamma!r}")
        if self.buffer < self.batch:
            raise ValueError(f"{self.name}: a buffer of {self.buffer} never holds a batch of {self.batch} transitions")
        if self.agents == "ma" and self.critics == "shared":
            raise ValueError(f"{self.name}: critics=shared judge the joint action, agents=ma only their own; give ct")

    @property
    def claims(self) -> Claims:
        """See `Claims`; agents differ, and so tasks are not exchangeable."""
        return Claims(nonnegative=True, equivariant=False)

    def check_use(self, n_tasks: int) -> None:
        """See `Combiner.check_use`: no single task; no raw gradients; no second look at a batch.

        Raises:
            ValueError: as it says.
        """
        self._check_tasks(n_tasks)
        for option, value, wanted in (
            ("observation", "raw", "the gradients themselves (show)"),
            ("strategy", "same", "a second look at every batch (after)"),
        ):
            if getattr(self, option) == value:
                raise ValueError(
                    f"{self.name}: {option}={value} needs {wanted}, which only a loop of your own can "
                    "hand it; leave it out here"
                )

    def show(self, features: Float[np.ndarray, "K F"]) -> None:
        """Hand the next `combine` or `after` what observation=raw sees: the gradients, shortened by `project`.

        Raises:
            ValueError: they are not finite rows.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(f"{self.name}: what show is handed must be finite, a row a task; it is {features.shape}")
        self._shown = features

    def after(self, gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"]) -> None:
        """End the transition of the last `combine` with the Gram and losses of the same batch after the step.

        Raises:
            ValueError: as `combine`; another strategy; or no `combine` before.
        """
        if self.strategy != "same":
            raise ValueError(f"{self.name}: after is for strategy=same, not strategy={self.strategy}")
        if self._mind is None or not self._mind.open:
            raise ValueError(f"{self.name}: after ends the transition that combine began: call combine first")
        gram = check_gram(gram)
        with single_thread():
            self._end(self._mind, self._look(gram, check_losses(losses, len(gram), self.name)))

    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        assert losses is not None  # combine checked it
        scene = self._look(gram, losses)
        mind = self._mind = self._mind or self._begin(len(gram), len(scene.joint))
        if mind.open and self.strategy == "same":
            raise ValueError(f"{self.name}: strategy=same needs after(gram, losses) between two calls of combine")
        if mind.open:
            self._end(mind, scene)
        self._require_same_tasks(mind, scene)
        mind.noise = ornstein_uhlenbeck(mind.noise, self._rng(_NOISE, mind.calls).normal(size=len(gram)))
        scale = noise_scale(mind.calls, self.noise_start, self.noise_end, self.noise_steps)
        action = np.clip(mind.agents.act(scene.joint) + scale * mind.noise, -1, 1)
        weights: np.ndarray = softmax(self.sharpness * action)
        mind.buffer.begin(scene.joint, action)
        mind.gradient_reward = self._gradient_reward(scene.gram, weights)
        mind.before, mind.open, mind.calls = scene.losses, True, mind.calls + 1
        reports = dict(zip(self.reports, mind.rewards.tolist(), strict=True))
        status = Status.OK if np.diagonal(gram).any() else Status.NO_GRADIENT
        return Combination(
            weights / scene.scales if self.step == "normalised" else weights, Record(status=status), reports
        )

    def state(self) -> dict[str, np.ndarray]:
        """See `Combiner.state`."""
        mind = self._mind
        if mind is None:
            return {}
        numbers = (mind.noise, mind.calls, mind.before, mind.gradient_reward, mind.open, mind.rewards)
        return {
            **mind.agents.state(),
            **mind.buffer.state(),
            **{name: np.array(value) for name, value in zip(mind.numbers, numbers, strict=True)},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Combiner.restore`."""
        self._mind = self._shown = None
        if not state:
            return
        if wrong := sorted(set(state) ^ set(self.state_names)):
            raise ValueError(
                f"{self.name} carries {', '.join(self.state_names)}, but {', '.join(wrong)} is not in both"
            )
        mind = self._begin(len(state["noise"]), state["observations"].shape[1])
        mind.agents.restore(state)
        mind.buffer.restore(state)
        mind.noise, mind.before, mind.rewards = (state[name].copy() for name in ("noise", "before", "rewards_last"))
        mind.calls, mind.open = int(state["calls"]), bool(state["open"])
        mind.gradient_reward = float(state["gradient_reward"])
        self._mind = mind

    def _check_tasks(self, n_tasks: int) -> None:
        if n_tasks < 2:
            raise ValueError(f"{self.name} shares a step between tasks, and here is only one: use mean")

    def _look(self, gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"]) -> _Scene:
        """A Gram, losses (and what was shown) as the agents see them.

        Raises:
            ValueError: a single task; a loss without a logarithm; observation=raw and nothing shown.
        """
        self._check_tasks(len(gram))
        if self.loss == "log":
            if losses.min() <= 0:
                i = int(losses.argmin())
                raise ValueError(
                    f"{self.name} observes log L, but the loss of task {i} is {losses[i]:g}: give "
                    f"{self.name}:loss=raw, or losses that are positive"
                )
            seen = np.log(losses)
        else:
            seen = losses
        scales = gradient_scales(gram, losses, self.normalise, self.name)
        normalised = gram / np.outer(scales, scales)
        if self.observation == "gram":
            return _Scene(normalised, scales, seen, joint_gram(normalised, seen))
        shown, self._shown = self._shown, None
        if shown is None or len(shown) != len(gram):
            raise ValueError(
                f"{self.name}: observation=raw needs show(project(gradients, ...)), {len(gram)} rows, first"
            )
        return _Scene(normalised, scales, seen, joint_features(shown / scales[:, None], seen))

    def _begin(self, n_tasks: int, size: int) -> _Memory:
        """Agents that have seen nothing."""
        try:
            from toppo.combiners.taskforce.agents import Agents, Settings
        except ImportError as error:
            raise ImportError(f"{self.name} needs {error.name}: pip install 'toppo[train]'") from error

        settings = Settings(self.agents, self.critics == "shared", self.hidden, self.lr, self.tau, self.gamma)
        rows = local_rows(n_tasks, size, self.observation == "raw")
        return _Memory(
            agents=Agents(rows, size, settings, self._rng(_INIT)),
            buffer=ReplayBuffer(self.buffer, n_tasks, size, stride=2 if self.strategy == "same" else 1),
            noise=np.zeros(n_tasks),
            calls=0,
            before=np.zeros(n_tasks),
            gradient_reward=0.0,
            open=False,
            rewards=np.full(3, np.nan),
        )

    def _require_same_tasks(self, mind: _Memory, scene: _Scene) -> None:
        size = mind.buffer.observation_size
        if len(scene.joint) != size:
            raise ValueError(
                f"{self.name} carries observations of shape ({size},), but this call needs ({len(scene.joint)},); "
                "restore({}) forgets"
            )

    def _end(self, mind: _Memory, scene: _Scene) -> None:
        """Pay the open transition, keep it, and learn if it is time to."""
        self._require_same_tasks(mind, scene)
        r_l = loss_reward(mind.before, scene.losses)
        weight = {"norm": self.lambda_g, "imtl": self.lambda_imtl, "none": 0.0}[self.r_g]
        reward = self.lambda_l * r_l + weight * mind.gradient_reward
        mind.buffer.end(scene.joint, reward)
        mind.rewards, mind.open = np.array([reward, r_l, mind.gradient_reward]), False
        if len(mind.buffer) >= self.batch and mind.buffer.transitions % self.every == 0:
            rng = self._rng(_SAMPLE, mind.buffer.transitions)
            mind.agents.learn(mind.buffer.sample(self.batch, rng), *mind.buffer.reward_scale())

    def _gradient_reward(self, gram: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"]) -> float:
        """r_G, of normalised gradients; 0 with r_g=none."""
        if self.r_g == "none":
            return 0.0
        return (norm_reward if self.r_g == "norm" else imtl_reward)(gram, weights)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

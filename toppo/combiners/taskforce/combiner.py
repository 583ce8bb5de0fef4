"""TaskForce: one agent per task learns to weigh the gradients while the tasks train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from toppo.combiners.base import (
    Claims,
    Combination,
    Combiner,
    DeadTasks,
    Record,
    Status,
    option_error,
    require_at_least_zero,
    require_positive,
)
from toppo.combiners.blas import single_thread
from toppo.combiners.errors import CombinerError, MissingPackageError
from toppo.combiners.gram import check_gram, check_losses
from toppo.combiners.taskforce.buffer import ReplayBuffer
from toppo.combiners.taskforce.noise import noise_scale, ornstein_uhlenbeck
from toppo.combiners.taskforce.observation import (
    Normalisation,
    gradient_scales,
    joint_features,
    joint_gram,
    local_rows,
)
from toppo.combiners.taskforce.reward import imtl_reward, loss_reward, norm_reward
from toppo.common.errors import UsageError

if TYPE_CHECKING:
    from toppo.combiners.taskforce.agents import Agents

_INIT, _NOISE, _SAMPLE = range(3)
"""Keys of random streams. The number of the call is part of each key too, so the state holds no generator."""


@dataclass(frozen=True)
class _Scene:
    """One Gram and its losses, in the form that the agents see."""

    gram: Float[np.ndarray, "K K"]
    """Gram of the normalised gradients."""
    scales: Float[np.ndarray, "K"]
    """The number that each gradient was divided by."""
    losses: Float[np.ndarray, "K"]
    """log L, or L with loss=raw, one per task."""
    joint: Float[np.ndarray, "D"]
    """The joint observation."""


@dataclass
class _Memory:
    """Everything that a call keeps for the next call."""

    agents: Agents
    buffer: ReplayBuffer
    noise: Float[np.ndarray, "K"]
    calls: int
    before: Float[np.ndarray, "K"]
    """The losses (or log losses) at the start of the open transition."""
    gradient_reward: float
    """r_G of the open transition."""
    open: bool
    """Whether a transition waits for the observation that ends it."""
    rewards: Float[np.ndarray, "3"]
    """R, r_L and r_G of the last complete transition; NaN before the first."""

    numbers: ClassVar[tuple[str, ...]] = ("noise", "calls", "before", "gradient_reward", "open", "rewards_last")


@dataclass
class TaskForce(Combiner):
    """TaskForce: cooperative agents, one per task, learn to weigh the tasks.

    The agents are trained by MADDPG (Lowe et al., Multi-Agent Actor-Critic, NeurIPS 2017). Agent t sees o_t =
    [<g_t, g_1> ... <g_t, g_K> | log L_t] of the normalised gradients (Equation 15 of TaskForce's appendix). It answers
    with an action a_t in [-1, 1]. The weights are w = softmax(sharpness a), so they are positive and sum to 1. The
    direction is d = J'w, which the appendix calls the step G. The next observation brings the reward of all agents, R =
    lambda_l r_L + lambda_G r_G.

    The appendix leaves some points open. This is what the code does:

    - r_L is the mean over tasks of the drop in log loss.
    - r_G is taken of the normalised gradients, so lambda_g means the same at every scale.
    - The agents see normalised gradients, as in MGDA's code, but d is made of the gradients themselves. With
      step=normalised, d is made of the normalised gradients, and the weights of the g_t do not sum to 1.
    - The softmax and the bound of the action are our choice. With sharpness = 3 one weight can be 400 times another.
    - The noise is DDPG's Ornstein-Uhlenbeck noise with theta = 0.15 and sigma = 0.2, times a factor that falls from
      noise_start to noise_end in noise_steps calls. Noisy actions are clipped to [-1, 1].
    - Rewards are normalised by the mean and the standard deviation of all rewards in the buffer.
    - An actor climbs its critic as it is before the critic's own step. The actions of the other agents come from the
      buffer.
    - Networks have ReLU, and a tanh at the end of an actor. An actor's last layer starts within +-0.003.
    - The joint observation holds the upper triangle of the symmetric Gram only.
    - Learning starts when the buffer holds `batch` transitions.

    Losses must be positive. With loss=raw they can have either sign, and the agents see and are paid for L itself.
    PPO's actor losses need this, and `toppo train` sets it for the actor. `Combination.reports` holds R, r_L and r_G of
    the transition that this call's observation ended. With strategy=same, it is the transition that `after` ended last.
    Before the first transition ends, these numbers are NaN. A dead task is weighed like any other.

    State: parameters, targets and Adam of the networks, the replay buffer, the noise, the open transition, and the
    number of calls, which keys all randomness. At K = 50 a full buffer takes half a gigabyte. Set `buffer` for less.

    Args:
        r_g: kind of r_G. "norm" is -||d||^2, "imtl" is Equation 23, "none" means no r_G.
        lambda_l: lambda_L, the weight of r_L, >= 0.
        lambda_g: lambda_G with r_g=norm, >= 0.
        lambda_imtl: lambda_G with r_g=imtl, >= 0.
        agents: a stage of the ablation in Appendix A. "single": one agent (DDPG) with mu(O) and Q(O, A). "ma": mu_t(O)
            and Q_t(O, a_t). "ct": mu_t(O) and Q_t(O, A). "de": mu_t(o_t) and Q_t(O, A).
        critics: "own" has one critic per task, whose cost grows as K^3. "shared" has one critic for all tasks, which is
            possible because all agents share R.
        observation: "gram", or "raw" for the gradients themselves (Equation 14). Then call `show` before each call.
        strategy: which observation ends a transition. "next": the Gram and losses of the next call (Strategy 1).
            "same": the Gram and losses of the same batch after the step (Strategy 2, Algorithm 2). Then call `after`
            after each step.
        every: number of transitions between updates of the agents, >= 1.
        normalise: divisor of the gradients: l2, loss, loss+ or none (see `gradient_scales`).
        loss: "log", or "raw" for losses that can be zero or negative.
        step: "raw" makes d = sum_t w_t g_t, "normalised" makes d = sum_t w_t g_t / scale_t.
        sharpness: factor inside the softmax, > 0.
        hidden: width of the two hidden layers.
        lr: Adam's learning rate for actors and critics.
        batch: number of transitions in an update.
        buffer: number of transitions in the buffer, at least `batch`.
        tau: rate at which the targets follow, in (0, 1].
        gamma: discount, in [0, 1).
        noise_start: first factor on the noise, >= 0.
        noise_end: last factor on the noise, >= 0.
        noise_steps: number of calls from noise_start to noise_end, >= 1.
        seed: seed of networks, noise and sampling. `toppo train` sets it to the seed of the run, unless it is given.
    """

    name: ClassVar[str] = "taskforce"
    dead_tasks: ClassVar[DeadTasks] = "keep"
    needs_losses: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = (
        *("parameters", "targets", "first_moment", "second_moment", "adam_steps"),
        *ReplayBuffer.names,
        *_Memory.numbers,
    )
    reports: ClassVar[Mapping[str, str]] = {
        "reward": "R of the transition that ended with this observation",
        "reward_loss": "r_L of that transition, the mean drop of the (log) loss",
        "reward_gradient": "r_G of that transition",
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
        at_least_zero = ("lambda_l", "lambda_g", "lambda_imtl", "noise_start", "noise_end", "seed")
        require_at_least_zero(self.name, **{name: getattr(self, name) for name in at_least_zero})
        if not 0 < self.tau <= 1:
            raise option_error(self.name, "tau", self.tau, "must lie above 0 and at most at 1")
        if not 0 <= self.gamma < 1:
            raise option_error(self.name, "gamma", self.gamma, "must lie in [0, 1)")
        if self.buffer < self.batch:
            raise UsageError(
                f"{self.name}: a buffer of {self.buffer} never holds a batch of {self.batch} transitions; "
                "give a larger buffer or a smaller batch"
            )
        if self.agents == "ma" and self.critics == "shared":
            raise UsageError(
                f"{self.name}: critics=shared judge the joint action, but agents=ma judge their own action only; "
                "give agents=ct or critics=own"
            )

    @property
    def claims(self) -> Claims:
        return Claims(nonnegative=True, equivariant=False)  # agents differ, so tasks cannot be exchanged

    def check_use(self, n_tasks: int) -> None:
        """Reject a single task, observation=raw and strategy=same. A loop calling only `combine` cannot support them.

        Args:
            n_tasks: K.

        Raises:
            UsageError: there is a single task, or one of these options is set.
        """
        self._check_tasks(n_tasks)
        for option, value, wanted in (
            ("observation", "raw", "the gradients themselves (see TaskForce.show)"),
            ("strategy", "same", "a second look at every batch (see TaskForce.after)"),
        ):
            if getattr(self, option) == value:
                raise UsageError(
                    f"{self.name}: {option}={value} needs {wanted}; only a training loop of your own can do this, so "
                    f"leave {option}={value} out here",
                    option=option,
                    value=value,
                )

    def show(self, features: Float[np.ndarray, "K F"]) -> None:
        """Set what the agents see at the next `combine` or `after`, with observation=raw.

        Args:
            features: the gradients, or what `project` made of them, one row per task.

        Raises:
            CombinerError: the features are not finite rows.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or not np.isfinite(features).all():
            raise CombinerError(
                f"{self.name}: show() needs finite features (K, F), one row per task, but the shape is {features.shape}"
            )
        self._shown = features

    def after(self, gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"]) -> None:
        """End the transition of the last `combine`, with strategy=same.

        Args:
            gram: G of the same batch after the step.
            losses: the losses of the same batch after the step, one per task.

        Raises:
            CombinerError: see `combine`; or the strategy is another one, or `combine` was not called before.
        """
        if self.strategy != "same":
            raise CombinerError(f"{self.name}: after() is for strategy=same, not strategy={self.strategy}")
        if self._mind is None or not self._mind.open:
            raise CombinerError(f"{self.name}: after() ends the transition that combine() began; call combine() first")
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
            raise CombinerError(f"{self.name}: strategy=same needs after(gram, losses) between two calls of combine()")
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
        if not state:
            self._mind = self._shown = None
            return
        if wrong := sorted(set(state) ^ set(self.state_names)):
            raise CombinerError(
                f"{self.name} carries {', '.join(self.state_names)}, but {', '.join(wrong)} is not in both; "
                "restore a state of the same method"
            )
        mind = self._begin(len(state["noise"]), state["observations"].shape[1])
        mind.agents.restore(state)
        mind.buffer.restore(state)
        mind.noise, mind.before, mind.rewards = (state[name].copy() for name in ("noise", "before", "rewards_last"))
        mind.calls, mind.open = int(state["calls"]), bool(state["open"])
        mind.gradient_reward = float(state["gradient_reward"])
        self._mind, self._shown = mind, None

    def _check_tasks(self, n_tasks: int) -> None:
        if n_tasks < 2:
            raise UsageError(f"{self.name} weighs tasks against each other, but there is only one: use mean")

    def _look(self, gram: Float[np.ndarray, "K K"], losses: Float[np.ndarray, "K"]) -> _Scene:
        """The agents' view of a Gram, losses and, with observation=raw, the features.

        Raises:
            CombinerError: a loss has no logarithm, or `show` was not called with observation=raw.
            UsageError: there is a single task.
        """
        self._check_tasks(len(gram))
        if self.loss == "log":
            if losses.min() <= 0:
                i = int(losses.argmin())
                raise CombinerError(
                    f"{self.name} observes log L, but the loss of task {i} is {losses[i]:g}: give "
                    f"{self.name}:loss=raw, or positive losses"
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
            raise CombinerError(
                f"{self.name}: observation=raw needs show(project(J, size)) of {len(gram)} rows before each call"
            )
        return _Scene(normalised, scales, seen, joint_features(shown / scales[:, None], seen))

    def _begin(self, n_tasks: int, size: int) -> _Memory:
        """New agents, before their first observation."""
        try:
            from toppo.combiners.taskforce.agents import Agents, Settings
        except ImportError as error:
            raise MissingPackageError(f"{self.name} needs {error.name}: pip install 'toppo[train]'") from error

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
            raise CombinerError(
                f"{self.name}: the state's observations have shape ({size},), but this call needs shape "
                f"({len(scene.joint)},); keep the number of tasks, or clear the state with restore({{}})"
            )

    def _end(self, mind: _Memory, scene: _Scene) -> None:
        """Complete the open transition with its reward. Then update the agents if an update is due."""
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
        """r_G of the normalised gradients; 0 with r_g=none."""
        if self.r_g == "none":
            return 0.0
        return (norm_reward if self.r_g == "norm" else imtl_reward)(gram, weights)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

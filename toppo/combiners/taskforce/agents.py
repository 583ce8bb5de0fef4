"""The agents' networks: all actors and all critics as stacked tensors, so that one batched computation serves all.

This file needs torch and is imported only when TaskForce is used. A stack of E networks with three layers is W_1
(E, in, H), W_2 (E, H, H), W_3 (E, H, out) and their biases. The critics' first layer has two parts, one for the
observation and one for the actions. The first part is the same for every action that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toppo.combiners.errors import CombinerError
from toppo.combiners.taskforce.buffer import Transitions

Stage = Literal["single", "ma", "ct", "de"]

LAST_LAYER = 3e-3
"""Bound of an actor's initial last layer (Lillicrap et al., 2016, Section 7). It makes the first weights almost equal.
"""

MOMENTS = {"first_moment": "exp_avg", "second_moment": "exp_avg_sq"}
"""Adam's two moments: their names in the state, and in torch."""


@dataclass(frozen=True)
class Settings:
    """Sizes and rates of the agents. They come from options of `TaskForce`, which documents them."""

    stage: Stage
    shared_critic: bool
    hidden: int
    lr: float
    tau: float
    gamma: float


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """A context in which torch computes on one thread.

    The networks are small, and on one thread their sums do not depend on the caller's number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Agents:
    """The actors and critics of all agents, their target networks, and Adam.

    Args:
        rows: the places in the joint observation that each agent sees, (K, L), from `local_rows`.
        size: D, the length of the joint observation.
        settings: sizes and rates.
        rng: draws the initial parameters.
        dtype: type of the parameters.
    """

    def __init__(
        self,
        rows: Int[np.ndarray, "K L"],
        size: int,
        settings: Settings,
        rng: np.random.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings, self._dtype = settings, dtype
        self.n_tasks = k = len(rows)
        self._rows = torch.from_numpy(rows.flatten()) if settings.stage == "de" else None
        single = settings.stage == "single"
        self._actors = 1 if single else k
        self._critics = 1 if single or settings.shared_critic else k
        h = settings.hidden
        shapes = {
            **_layers("actor", self._actors, rows.shape[1] if settings.stage == "de" else size, h, k if single else 1),
            **_layers("critic", self._critics, size, h, 1),
            "critic_w1_action": (self._critics, 1 if settings.stage == "ma" else k, h),
        }
        fan_in = {name: shape[1] for name, shape in shapes.items() if "_w" in name}
        fan_in["critic_w1"] = fan_in["critic_w1_action"] = size + shapes["critic_w1_action"][1]
        self.parameters: dict[str, Tensor] = {}
        for name, shape in shapes.items():
            last = name in ("actor_w3", "actor_b3")
            bound = LAST_LAYER if last else 1 / math.sqrt(fan_in[name.replace("_b", "_w")])
            drawn = torch.from_numpy(rng.uniform(-bound, bound, shape)).to(dtype)
            self.parameters[name] = drawn.requires_grad_()
        self.targets = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._adam = torch.optim.Adam(self.parameters.values(), lr=settings.lr, fused=True)

    @torch.no_grad()
    def act(self, observation: Float[np.ndarray, "D"]) -> Float[np.ndarray, "K"]:
        """The actions in [-1, 1] for one joint observation, without noise."""
        with one_torch_thread():
            joint = torch.from_numpy(observation[None].astype(np.float32)).to(self._dtype)
            actions: np.ndarray = self._policy(joint, self.parameters)[0].numpy().astype(np.float64)
        return actions

    def learn(self, batch: Transitions, mean: float, deviation: float) -> None:
        """Update every critic, actor and target once, from one batch.

        Critic t regresses on y = R + gamma Q'_t(O', mu'(O')). Actor t climbs Q_t at the batch's joint action, with a_t
        replaced by its own action (Lowe et al., Multi-Agent Actor-Critic, 2017, Equation 6). Both gradients are taken
        at the parameters before the update, and one step of Adam applies both.

        Args:
            batch: transitions from the replay buffer, float32.
            mean, deviation: mean and standard deviation of the rewards, which normalise them.
        """
        with one_torch_thread():
            total = self._loss(batch, mean, deviation)
            gradients = torch.autograd.grad(total, list(self.parameters.values()))
            for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
                parameter.grad = gradient
            self._adam.step()
            with torch.no_grad():
                now = [p.detach() for p in self.parameters.values()]
                torch._foreach_lerp_(list(self.targets.values()), now, self.settings.tau)

    def _loss(self, batch: Transitions, mean: float, deviation: float) -> Tensor:
        """Sum of all losses of critics and actors. Each loss depends on the parameters of its own network alone."""
        observations, actions, rewards, following = (
            torch.from_numpy(x).to(self._dtype)
            for x in (batch.observations, batch.actions, batch.rewards, batch.next_observations)
        )
        p, fixed = self.parameters, {name: value.detach() for name, value in self.parameters.items()}
        with torch.no_grad():
            first = self._first(following, self._policy(following, self.targets), self.targets)
            y = ((rewards - mean) / deviation)[None, :, None] + self.settings.gamma * _tail(first, self.targets)
        first = self._first(observations, actions, p)
        critic_loss = (_tail(first, p) - y).square().mean(dim=(1, 2)).sum()
        # Only action t changes for critic t, so its first layer moves along the weights of that action.
        own = self._own(self._policy(observations, p) - actions)
        tried = first.detach() + own @ self._own_weights(fixed)
        value = _tail(tried.reshape(self._critics, -1, self.settings.hidden), fixed)
        return critic_loss - value.sum() / len(rewards)

    def _policy(self, joint: Tensor, p: Mapping[str, Tensor]) -> Tensor:
        """The actions mu (B, K) for joint observations (B, D)."""
        x = joint.expand(self._actors, *joint.shape)
        if self._rows is not None:
            rows = joint.index_select(1, self._rows)  # several times as fast as joint[:, rows] with rows (K, L)
            x = rows.view(len(joint), self.n_tasks, -1).transpose(0, 1)
        h = torch.baddbmm(p["actor_b1"], x, p["actor_w1"]).relu_()
        h = torch.baddbmm(p["actor_b2"], h, p["actor_w2"]).relu_()
        out = torch.tanh(torch.baddbmm(p["actor_b3"], h, p["actor_w3"]))
        return out[0] if self.settings.stage == "single" else out[..., 0].T

    def _own(self, actions: Tensor) -> Tensor:
        """Each agent's own action, (E, B, 1), out of actions (B, K). A single agent owns all actions, (1, B, K)."""
        return actions[None] if self.settings.stage == "single" else actions.T[..., None]

    def _own_weights(self, p: Mapping[str, Tensor]) -> Tensor:
        """The critics' weights on each agent's own actions, (E, 1, H) or (1, K, H)."""
        w = p["critic_w1_action"]
        if self.settings.stage in ("single", "ma"):
            return w
        k = torch.arange(self.n_tasks)
        return w[0 if self.settings.shared_critic else k, k][:, None]

    def _first(self, joint: Tensor, actions: Tensor, p: Mapping[str, Tensor]) -> Tensor:
        """The critics' first layer before its nonlinearity, (E, B, H), for observations (B, D) and actions (B, K)."""
        of_actions = self._own(actions) if self.settings.stage == "ma" else actions.expand(self._critics, -1, -1)
        bias = torch.baddbmm(p["critic_b1"], of_actions, p["critic_w1_action"])
        return torch.baddbmm(bias, joint.expand(self._critics, -1, -1), p["critic_w1"])

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that learning changes, one flat array per kind."""
        adam = [self._adam.state[p] for p in self.parameters.values()]
        state = {"parameters": _flat(self.parameters.values()), "targets": _flat(self.targets.values())}
        for name, key in MOMENTS.items():
            state[name] = _flat([s[key] for s in adam]) if adam[0] else np.zeros_like(state["targets"])
        state["adam_steps"] = np.array(float(adam[0]["step"]) if adam[0] else 0.0)
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back a state that `state` returned.

        Raises:
            CombinerError: the state belongs to networks of other shapes.
        """
        sizes = [p.numel() for p in self.parameters.values()]
        for name in ("parameters", "targets", *MOMENTS):
            if state[name].shape != (sum(sizes),):
                raise CombinerError(
                    f"taskforce: the state's {name} are {len(state[name])} numbers, but these options make "
                    f"{sum(sizes)}; restore a state made with the same options and tasks"
                )

        def parts(name: str) -> list[Tensor]:
            flat = torch.from_numpy(state[name].copy()).to(self._dtype).split(sizes)
            return [part.view(p.shape) for part, p in zip(flat, self.parameters.values(), strict=True)]

        with torch.no_grad():
            for kept, name in ((self.parameters, "parameters"), (self.targets, "targets")):
                for value, stored in zip(kept.values(), parts(name), strict=True):
                    value.copy_(stored)
        moments = {key: [m.clone() for m in parts(name)] for name, key in MOMENTS.items()}
        for n, p in enumerate(self.parameters.values()):
            step = torch.tensor(float(state["adam_steps"]))
            self._adam.state[p] = {"step": step, **{key: values[n] for key, values in moments.items()}}


def _layers(name: str, n: int, size: int, hidden: int, out: int) -> dict[str, tuple[int, int, int]]:
    """Shapes of the parameters of n stacked networks with three layers."""
    widths = [(size, hidden), (hidden, hidden), (hidden, out)]
    shapes: dict[str, tuple[int, int, int]] = {}
    for layer, (before, after) in enumerate(widths, start=1):
        shapes[f"{name}_w{layer}"] = (n, before, after)
        shapes[f"{name}_b{layer}"] = (n, 1, after)
    return shapes


def _tail(first: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    """The values Q (E, B, 1), from the critics' first layer."""
    h = torch.baddbmm(p["critic_b2"], torch.relu(first), p["critic_w2"]).relu_()
    return torch.baddbmm(p["critic_b3"], h, p["critic_w3"])


def _flat(tensors: Iterable[Tensor]) -> np.ndarray:
    flat: np.ndarray = torch.cat([t.detach().flatten() for t in tensors]).numpy()
    return flat

"""One update phase of TOPPO (Algorithm C.1): what happens between two rollout phases, from top to bottom.

    rollout -> values, GAE, targets -> PopArt, then in every minibatch of every repeat:
        per-task losses -> one backward pass -> J (K, P) of each side -> G = J J' (K, K) -> combiner's weights w (K,)
        -> d = J'w -> joint clip of both sides -> Adam

A collect is a rollout phase with its update phase. A repeat is one pass over the data. A side is the actor or the
critic. The slab of a side holds its J, with the gradients g_i of all K tasks as rows.

The update stays on the device, with two exceptions per minibatch: the Grams and per-task numbers go to the host, where
the combiners solve, and the weights come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from toppo.capture import Slab
from toppo.combiners import Combination, Combiner, FairGrad, FairGradPaper, make
from toppo.combiners.geometry import direction_norm
from toppo.common.errors import ToppoError
from toppo.training.config import TrainConfig
from toppo.training.envs.interface import Rollout
from toppo.training.gaussian import entropy, log_prob
from toppo.training.learner.losses import normalise_per_task, policy_loss, value_loss
from toppo.training.learner.networks import Actor, Critic, NetworkShape, count_parameters
from toppo.training.learner.popart import PopArt
from toppo.training.learner.rollout import Batch, generalised_advantage, stratified_minibatches
from toppo.training.learner.stopwatch import Stopwatch

SIDES = ("actor", "critic")
PER_TASK = ("loss_actor", "loss_critic", "entropy", "ratio_clip_fraction", "value_clip_fraction", "approx_kl")
"""Numbers that every minibatch reports per task."""

BLOCK_ROWS = 8_192
"""Rows of a minibatch in one forward and backward pass on a CPU, in whole tasks.

These are all tasks of MT10, and half of the tasks of MT50. More rows would not fit in the caches. A GPU takes all rows
at once.
"""
FORWARD_ROWS = {"cpu": 1_024, "cuda": 65_536}
"""Rows of one forward pass over the data of a collect, limited by the caches of a CPU and by the memory of a GPU."""

STANDS = "the last checkpoint is intact"

MINIBATCH_STREAM, ORDER_STREAM, INIT_STREAM = 3, 4, 5
"""Keys of random streams. The environments have the keys 0 to 2 (`toppo.training.envs.player`)."""


@dataclass(frozen=True)
class SideUpdate:
    """One side of one minibatch: what the combiner received, and what it returned."""

    gram: np.ndarray
    """G of the paper's g_i, (K, K) float64. The critic's g_i are without the weight c_v of the value loss."""
    combination: Combination
    """Weights w for the scaled gradients (`gradient_scale` times g_i), and the record of the solution."""
    order: np.ndarray | None
    """The random order of the tasks that the combiner received, if it takes one."""


@dataclass(frozen=True)
class MinibatchUpdate:
    """What one minibatch update did. The observer gets it while the slabs still hold the gradients."""

    index: int
    """Number of the update in its update phase, from 0."""
    sides: dict[str, SideUpdate]
    per_task: dict[str, np.ndarray]
    """The numbers of `PER_TASK`, (K,) float64 each."""
    clip_factor: float
    """min(1, tau / ||(d^a, d^c)||), the joint clip."""


@dataclass(frozen=True)
class Targets:
    """Advantages, values and value targets under the critic when they were computed last, (K, N) float64 each."""

    advantage: Tensor
    value: Tensor  # in the critic's units: normalised with PopArt, raw without it
    target: Tensor  # in the critic's units


Observer = Callable[[MinibatchUpdate], None]


class StepError(Exception):
    """A minibatch has no usable direction. The message names the task or the combiner, and the side."""


class Learner:
    """Networks, PopArt, optimizer and combiners, with the update phase that changes them.

    Args:
        config: the configuration of the run.
        shape: sizes of the networks.
        tasks: names of the K tasks, for messages.
        device: holds the networks, the slabs and the batch.
    """

    def __init__(self, config: TrainConfig, shape: NetworkShape, tasks: tuple[str, ...], device: torch.device) -> None:
        self.config, self.tasks, self.device = config, tasks, device
        self.clock = Stopwatch()
        generator = torch.Generator().manual_seed(stream_seed(config.seed, INIT_STREAM))
        self.actor = Actor(shape, config.layernorm == "both", generator).to(device)
        self.critic = Critic(shape, config.layernorm in ("critic", "both"), generator).to(device)
        self.popart = PopArt(shape.n_tasks, config.popart, config.popart_sigma_min, config.popart_beta).to(device)  # type: ignore[arg-type]
        self.combiners: dict[str, Combiner] = {
            "actor": make(config.actor_combiner),
            "critic": make(config.critic_combiner),
        }
        self.gradient_scale = {"actor": 1.0, "critic": config.value_coef}
        self.slabs = {"actor": Slab(self.actor, shape.n_tasks), "critic": Slab(self.critic, shape.n_tasks)}
        self._flatten()
        self.optimizer = torch.optim.Adam(
            [self.theta, *self.popart.parameters()], lr=config.learning_rate, eps=config.adam_eps, fused=True
        )
        self.worst_norm_deviation = torch.zeros(2, dtype=torch.float64, device=device)
        """Largest | ||d^c|| / sqrt(K) - 1 | before clipping in the last update phase.

        The second number is the same, with K the number of tasks that have a gradient. See `pins_norm`.
        """

    def _flatten(self) -> None:
        """Move all parameters to one vector theta = [theta^a | theta^c | log sigma], so that Adam makes one step."""
        shared = [self.slabs[side].parameters for side in SIDES]
        parameters = [*shared[0], *shared[1], self.actor.log_std]
        self.theta = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
        self.theta.grad = torch.zeros_like(self.theta)
        offset = 0
        for p in parameters:
            p.data = self.theta.data[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()
        sizes = [self.slabs["actor"].size, self.slabs["critic"].size, self.actor.log_std.numel()]
        actor_grad, critic_grad, self._log_std_grad = self.theta.grad.split(sizes)
        self._direction = {"actor": actor_grad, "critic": critic_grad}

    @property
    def n_parameters(self) -> int:
        """Number of parameters, counted as in Section B.3."""
        return count_parameters(self.actor, self.critic, self.popart)

    def update(self, batch: Batch, collect: int, observer: Observer) -> None:
        """Run the whole update phase after one rollout.

        Args:
            batch: the data of this collect.
            collect: number of the collect. It is part of the key of the random streams. So the phase depends on the
                state, the batch and this number alone.
            observer: called after each minibatch's step, while the slabs still hold its gradients.

        Raises:
            ToppoError: a loss, gradient or parameter is not finite. The message names the task, the side and the step.
        """
        config = self.config
        generator = torch.Generator().manual_seed(stream_seed(config.seed, MINIBATCH_STREAM, collect))
        orders = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(ORDER_STREAM, collect)))
        self.worst_norm_deviation.zero_()
        with self.clock.phase("values"):
            targets = self.targets(batch, refresh_popart=True)
        k, n = targets.value.shape
        index = 0
        for repeat in range(config.repeats):
            if repeat > 0 and config.recompute:
                with self.clock.phase("values"):
                    targets = self.targets(batch)
            for samples in stratified_minibatches(k, n, config.minibatches, generator, self.device):
                try:
                    observer(self.step(batch, targets, samples, index, orders))
                except StepError as error:
                    where = f"collect {collect}, repeat {repeat + 1}, minibatch {index % config.minibatches + 1}"
                    raise ToppoError(f"{error} at {where}; {STANDS}") from None
                index += 1
        self._require_finite_parameters(collect)

    def prepare(self, rollout: Rollout) -> Batch:
        """The batch of a whole rollout, on the device."""
        batch = Batch.empty(rollout, self.device)
        batch.load(rollout)
        return batch

    @torch.no_grad()
    def targets(self, batch: Batch, refresh_popart: bool = False) -> Targets:
        """Values, advantages and targets under the current critic (Algorithm C.1, lines 1-2 and 5).

        Args:
            batch: the data of the collect.
            refresh_popart: add the targets to PopArt's statistics first. This happens once per collect.
        """
        config, popart = self.config, self.popart
        value = popart.denormalise(popart(self._values(batch.obs)))
        advantage, target = generalised_advantage(batch.rewards, value, config.gamma, config.gae_lambda)
        advantage, target, value = (x.flatten(1) for x in (advantage, target, value[..., :-1]))
        if refresh_popart:
            popart.update(target)
        return Targets(advantage, popart.normalise(value), popart.normalise(target))

    def losses(self, batch: Batch, targets: Targets, samples: Tensor, tasks: slice = slice(None)) -> dict[str, Tensor]:
        """The numbers of `PER_TASK` for some tasks of one minibatch, (k,) each.

        Args:
            batch: the data of the collect.
            targets: the targets that were computed last.
            samples: indices (k, n) into the N samples of each of these tasks.
            tasks: the tasks; all by default.
        """
        config = self.config
        horizon = batch.rewards.shape[-1]
        # Each episode has T + 1 observations for T samples.
        obs = _gather(batch.obs[tasks].flatten(1, 2), samples + samples // horizon)
        log_std = self.actor.log_std[tasks]
        advantage = _gather(targets.advantage[tasks], samples)
        if config.normalise_advantage:
            advantage = normalise_per_task(advantage)
        log_ratio = log_prob(self.actor(obs, tasks), log_std, _gather(batch.actions[tasks].flatten(1, 2), samples))
        log_ratio = log_ratio - _gather(batch.log_prob[tasks].flatten(1), samples)
        loss_actor, ratio_cut = policy_loss(log_ratio, advantage.float(), config.clip)
        loss_critic, value_cut = value_loss(
            self.popart(self.critic(obs, tasks), tasks),
            _gather(targets.value[tasks], samples),
            _gather(targets.target[tasks], samples),
            config.clip if config.value_clip else None,
        )
        with torch.no_grad():
            approx_kl = (log_ratio.exp() - 1 - log_ratio).mean(1)
        numbers = (loss_actor, loss_critic, entropy(log_std), ratio_cut, value_cut, approx_kl)
        return dict(zip(PER_TASK, numbers, strict=True))

    def step(
        self, batch: Batch, targets: Targets, samples: Tensor, index: int, orders: np.random.Generator
    ) -> MinibatchUpdate:
        """Run one minibatch update (Algorithm C.1, lines 8-15).

        Args:
            batch: the data of the collect.
            targets: the targets that were computed last.
            samples: indices (K, n) of the minibatch.
            index: number of the minibatch in the update phase.
            orders: draws the random orders that combiners ask for.

        Raises:
            StepError: a loss or gradient is not finite, or the combiner cannot solve.
        """
        self.actor.log_std.grad = None
        for p in self.popart.parameters():
            p.grad = None
        k, n = samples.shape
        block = max(1, BLOCK_ROWS // n) if self.device.type == "cpu" else k
        with self.clock.phase("gradients"):
            parts = [
                self._fill_slabs(batch, targets, samples[i : i + block], slice(i, i + block))
                for i in range(0, k, block)
            ]
            losses = {name: torch.cat([part[name] for part in parts]) for name in PER_TASK}
        return self.step_from_slabs(losses, index, orders)

    def _fill_slabs(self, batch: Batch, targets: Targets, samples: Tensor, tasks: slice) -> dict[str, Tensor]:
        """The losses of these tasks, detached.

        Afterwards the gradients are in the slabs, and in `.grad` of the per-task parameters.
        """
        with self.slabs["actor"].attached(tasks), self.slabs["critic"].attached(tasks):
            losses = self.losses(batch, targets, samples, tasks)
            # Every loss enters with weight 1, so the rows of the slabs are the g_i themselves. The factors c_v and 1/K
            # come later, with the weights.
            total = losses["loss_actor"] - self.config.entropy_coef * losses["entropy"] + losses["loss_critic"]
            total.sum().backward()
        return {name: numbers.detach() for name, numbers in losses.items()}

    def step_from_slabs(self, losses: dict[str, Tensor], index: int, orders: np.random.Generator) -> MinibatchUpdate:
        """Combine the gradients in the slabs and in `.grad` of the per-task parameters. Then step (lines 13-15).

        Args:
            losses: losses of this minibatch, as `losses` returns them.
            index: number of the minibatch in the update phase.
            orders: draws the random orders that combiners ask for.

        Raises:
            StepError: see `step`.
        """
        k = len(self.tasks)
        with self.clock.phase("grams"):
            numbers = torch.stack([losses[name].detach().double() for name in PER_TASK], dim=1)
            on_device = torch.cat([*(self.slabs[side].gram() for side in SIDES), numbers], dim=1)
            host = on_device.cpu().numpy()  # the only transfer to the host
        grams = {"actor": host[:, :k], "critic": host[:, k : 2 * k]}
        per_task = dict(zip(PER_TASK, np.ascontiguousarray(host[:, 2 * k :].T), strict=True))
        self._require_finite(grams, per_task)

        with self.clock.phase("combiners"):
            sides = {side: self._combine(side, grams[side], per_task[f"loss_{side}"], orders) for side in SIDES}
        norms = [direction_norm(s.gram, s.combination.weights * self.gradient_scale[side]) for side, s in sides.items()]
        clip_factor = min(1.0, self.config.max_grad_norm / max(float(np.hypot(*norms)), 1e-300))
        with self.clock.phase("step"):
            self._apply(sides, clip_factor)
        return MinibatchUpdate(index, sides, per_task, clip_factor)

    def _combine(self, side: str, gram: np.ndarray, losses: np.ndarray, orders: np.random.Generator) -> SideUpdate:
        combiner = self.combiners[side]
        order = combiner.draw_order(orders, len(self.tasks))
        scaled = gram * self.gradient_scale[side] ** 2
        try:
            return SideUpdate(gram, combiner.combine(scaled, losses=losses, order=order), order)
        except (ValueError, ImportError) as error:
            raise StepError(f"the {side} combiner cannot go on: {error}") from None

    def _apply(self, sides: dict[str, SideUpdate], clip_factor: float) -> None:
        """Set the gradients to the clipped d = J'w of each side, and make one Adam step.

        Per-task parameters (log sigma, PopArt's W and b) get their own gradient with weight 1/K, as in a mean.
        """
        k = len(self.tasks)
        factors = [s.combination.weights * self.gradient_scale[side] * clip_factor for side, s in sides.items()]
        weights = torch.from_numpy(np.stack(factors)).to(self.device, torch.float32)
        for row, side in zip(weights, sides, strict=True):
            self.slabs[side].combine(row, self._direction[side])
        assert self.actor.log_std.grad is not None
        torch.mul(self.actor.log_std.grad.flatten(), clip_factor / k, out=self._log_std_grad)
        for p in self.popart.parameters():
            assert p.grad is not None
            p.grad.mul_(clip_factor * self.config.value_coef / k)
        if self.pins_norm:
            # Theorem 1 assumes independent gradients. Where some tasks have no gradient, the norm is the square root of
            # the number of the other tasks.
            live = max(1, int(np.count_nonzero(np.diagonal(sides["critic"].gram))))
            realised = self._direction["critic"].square().sum().double().sqrt() / clip_factor  # torch sums pairwise
            deviation = torch.stack([realised / sqrt(k) - 1, realised / sqrt(live) - 1]).abs()
            torch.maximum(self.worst_norm_deviation, deviation, out=self.worst_norm_deviation)
        self.optimizer.step()

    @property
    def pins_norm(self) -> bool:
        """Whether Theorem 1 fixes the norm of the critic's direction at sqrt(K). It does for FairGrad at alpha = 1."""
        combiner = self.combiners["critic"]
        return isinstance(combiner, (FairGrad, FairGradPaper)) and combiner.alpha == 1

    def _values(self, obs: Tensor) -> Tensor:
        """The critic's z (K, E, T + 1) of every state, computed for `FORWARD_ROWS` rows at a time."""
        rows = max(1, FORWARD_ROWS[self.device.type] // len(obs))
        z = torch.cat([self.critic(part) for part in obs.flatten(1, 2).split(rows, dim=1)], dim=1)
        return z.view(obs.shape[:-1])

    def _require_finite(self, grams: dict[str, np.ndarray], per_task: dict[str, np.ndarray]) -> None:
        losses = {"actor": per_task["loss_actor"] + per_task["entropy"], "critic": per_task["loss_critic"]}
        for what, numbers in (("loss", losses), ("gradient", {side: np.diagonal(grams[side]) for side in SIDES})):
            for side in SIDES:
                bad = ~np.isfinite(numbers[side])
                if bad.any():
                    raise StepError(f"non-finite {side} {what} of task {self.tasks[bad.argmax()]}")

    def _require_finite_parameters(self, collect: int) -> None:
        for module, name in ((self.actor, "actor"), (self.critic, "critic"), (self.popart, "PopArt")):
            for parameter, value in module.named_parameters():
                finite = value.isfinite()
                if bool(finite.all()):
                    continue
                per_task = module is self.popart or parameter == "log_std"
                row = int(finite.view(len(value), -1).all(1).logical_not().int().argmax())
                of = f" of task {self.tasks[row]}" if per_task else ""
                raise ToppoError(f"non-finite {name} parameter {parameter}{of} after collect {collect}; {STANDS}")


def _gather(x: Tensor, samples: Tensor) -> Tensor:
    """x[i, samples[i]] for every task i, (K, n, ...), from x (K, N, ...) and samples (K, n)."""
    k, n = samples.shape
    offsets = torch.arange(k, device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (samples + offsets).flatten()).view(k, n, *x.shape[2:])


def stream_seed(seed: int, *key: int) -> int:
    """Seed of the random stream with this key. Streams of different keys are independent."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""The data of one rollout phase (a collect) on the device, its advantages and value targets, and its minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from toppo.training.envs.interface import Rollout


@dataclass(frozen=True)
class Batch:
    """The rollout of one collect on the device: K tasks, E episodes per task, T steps per episode. See `Rollout`."""

    obs: Tensor  # (K, E, T + 1, obs) float32
    actions: Tensor  # (K, E, T, A) float32
    log_prob: Tensor  # (K, E, T) float32
    rewards: Tensor  # (K, E, T) float64

    @classmethod
    def empty(cls, rollout: Rollout, device: torch.device) -> Batch:
        """A batch with room for rollouts of this rollout's shapes."""
        sources = (torch.from_numpy(getattr(rollout, field.name)) for field in fields(cls))
        return cls(*(torch.empty_like(source, device=device) for source in sources))

    def load(self, rollout: Rollout, tasks: int | slice = slice(None), episodes: slice = slice(None)) -> None:
        """Copy these episodes of these tasks from a rollout.

        Args:
            rollout: a rollout of the same shapes as the one given to `empty`.
            tasks: rows of the first axis; all by default.
            episodes: rows of the second axis; all by default.
        """
        for field in fields(self):
            getattr(self, field.name)[tasks, episodes] = torch.from_numpy(getattr(rollout, field.name)[tasks, episodes])


def generalised_advantage(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE advantages and value targets of truncated episodes (Schulman et al. 2016).

    Args:
        rewards: (..., T).
        values: V of every state, (..., T + 1). The last V stands for the rewards after the truncation.
        gamma: discount.
        lam: GAE lambda.

    Returns:
        Advantages and targets A + V, each (..., T).
    """
    delta = rewards + gamma * values[..., 1:] - values[..., :-1]
    delta = delta.movedim(-1, 0).contiguous()
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = torch.add(delta[t], running, alpha=gamma * lam)
        advantage[t] = running
    advantage = advantage.movedim(0, -1).contiguous()
    return advantage, advantage + values[..., :-1]


def stratified_minibatches(
    n_tasks: int, n_samples: int, n_minibatches: int, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Sample indices (K, n) of each minibatch of one repeat, that is, of one pass over the data.

    Each task has a permutation of its own, which is cut into nearly equal parts. So every minibatch has equally many
    samples of each task: n = n_samples // n_minibatches, or one more. The batch is then a dense (K, n, ...) block, and
    the gradient of every task is defined. The indices are drawn on the CPU and moved to `device` once per repeat.
    """
    permutations = torch.rand(n_tasks, n_samples, generator=generator, dtype=torch.float64).argsort(dim=1)
    yield from permutations.to(device).tensor_split(n_minibatches, dim=1)

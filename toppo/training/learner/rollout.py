"""What one collect brings, on the host and on the device, and what the update makes of it: advantages, targets,
stratified minibatches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from toppo.training.envs.interface import Rollout


@dataclass(frozen=True)
class Batch:
    """One collect on the device, float32 but for the rewards: K tasks, E episodes each, T steps each."""

    obs: Tensor  # (K, E, T + 1, obs)
    actions: Tensor  # (K, E, T, A)
    log_prob: Tensor  # (K, E, T)
    rewards: Tensor  # (K, E, T) float64

    @classmethod
    def empty(cls, rollout: Rollout, device: torch.device) -> Batch:
        """Room for rollouts of these shapes."""
        sources = (torch.from_numpy(getattr(rollout, field.name)) for field in fields(cls))
        return cls(*(torch.empty_like(source, device=device) for source in sources))

    def load(self, rollout: Rollout, tasks: int | slice = slice(None), episodes: slice = slice(None)) -> None:
        """Copy these episodes of these tasks from a rollout.

        Args:
            rollout: of the shapes that `empty` was given.
            tasks: rows of the first axis; all by default.
            episodes: rows of the second axis; all by default.
        """
        for field in fields(self):
            getattr(self, field.name)[tasks, episodes] = torch.from_numpy(getattr(rollout, field.name)[tasks, episodes])


def generalised_advantage(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE advantages and value targets of truncated episodes (Schulman et al. 2016).

    Args:
        rewards: (..., T).
        values: V of every state and of the final one, (..., T + 1); the final one is bootstrapped from, not taken
            as zero.
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
    """Sample indices (K, n) of each minibatch of one repeat: every task's own permutation, cut into near-equal parts.

    Every minibatch holds the same number n of each task's samples (n_samples // n_minibatches, or one more), so the
    batch is a dense (K, n, ...) block and every g_i is defined. Drawn on the CPU, moved to `device` once a repeat.
    """
    permutations = torch.rand(n_tasks, n_samples, generator=generator, dtype=torch.float64).argsort(dim=1)
    yield from permutations.to(device).tensor_split(n_minibatches, dim=1)

"""The paper's actor and critic: fully task-shared [400, 400, 400] ReLU networks over (observation, task one-hot)
(Table B.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from toppo.gradients import TaskLayerNorm, TaskLinear


def _trunk(n_in: int, hidden: Sequence[int], layernorm: bool) -> nn.Sequential:
    """Hidden layers Linear -> [LayerNorm] -> ReLU; a layer-normalised Linear has no bias (LN's mean subtraction makes
    it redundant).
    """
    layers: list[nn.Module] = []
    for width_in, width in zip([n_in, *hidden], hidden, strict=False):
        layers.append(TaskLinear(width_in, width, bias=not layernorm))
        if layernorm:
            layers.append(TaskLayerNorm(width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _initialise(network: nn.Module, output: TaskLinear, output_gain: float, generator: torch.Generator) -> None:
    """Orthogonal weights with gain sqrt(2), zero biases; the output layer's weights scaled by `output_gain`."""
    for layer in network.modules():
        if isinstance(layer, TaskLinear):
            nn.init.orthogonal_(layer.weight, gain=sqrt(2), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        output.weight *= output_gain


@dataclass(frozen=True)
class NetworkShape:
    """What both networks are built from: K tasks, the observation's and the action's size, hidden widths."""

    n_tasks: int
    obs_dim: int
    action_dim: int
    hidden: tuple[int, ...]


class Actor(nn.Module):
    """Diagonal Gaussian policy: a shared mean network and one log-standard-deviation row per task; no squashing."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _trunk(shape.obs_dim + shape.n_tasks, shape.hidden, layernorm)
        self.mean = TaskLinear(shape.hidden[-1], shape.action_dim)
        self.log_std = nn.Parameter(torch.zeros(shape.n_tasks, shape.action_dim))
        _initialise(self, self.mean, 0.01, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Action means (..., action_dim) of inputs (..., obs_dim + K)."""
        mean: Tensor = self.mean(self.trunk(x))
        return mean


class Critic(nn.Module):
    """Shared value network with one scalar output z (Section 4.1); `layernorm` is the paper's LN-c."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _trunk(shape.obs_dim + shape.n_tasks, shape.hidden, layernorm)
        self.output = TaskLinear(shape.hidden[-1], 1)
        _initialise(self, self.output, 1.0, generator)

    def forward(self, x: Tensor) -> Tensor:
        """z (...) of inputs (..., obs_dim + K)."""
        z: Tensor = self.output(self.trunk(x)).squeeze(-1)
        return z


def with_one_hot(obs: Tensor, n_tasks: int, tasks: slice = slice(None)) -> Tensor:
    """Append the task one-hot to observations (k, n, obs_dim) of these of K tasks: (k, n, obs_dim + K)."""
    one_hot = torch.eye(n_tasks, device=obs.device, dtype=obs.dtype)[tasks]
    return torch.cat([obs, one_hot[:, None, :].expand(-1, obs.shape[1], -1)], dim=-1)


def count_parameters(*modules: nn.Module) -> int:
    """Numbers held in memory during training, optimizer state excluded (Section B.3)."""
    return sum(p.numel() for module in modules for p in module.parameters())

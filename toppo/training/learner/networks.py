"""The paper's actor and critic: fully task-shared [400, 400, 400] ReLU networks over (observation, task one-hot)
(Table B.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from toppo.capture import OneHotLinear, TaskLayerNorm, TaskLinear, TaskReLU


@dataclass(frozen=True)
class NetworkShape:
    """What both networks are built from: K tasks, the observation's and the action's size, hidden widths."""

    n_tasks: int
    obs_dim: int
    action_dim: int
    hidden: tuple[int, ...]


class _Trunk(nn.Sequential):
    """Hidden layers Linear -> [LayerNorm] -> ReLU; a layer-normalised Linear has no bias (LN's mean subtraction makes
    it redundant).
    """

    def __init__(self, shape: NetworkShape, layernorm: bool) -> None:
        layers: list[nn.Module] = []
        for i, width in enumerate(shape.hidden):
            if i == 0:
                layers.append(OneHotLinear(shape.obs_dim, shape.n_tasks, width, bias=not layernorm))
            else:
                layers.append(TaskLinear(shape.hidden[i - 1], width, bias=not layernorm))
            if layernorm:
                layers.append(TaskLayerNorm(width))
            layers.append(TaskReLU())
        super().__init__(*layers)

    def forward(self, obs: Tensor, tasks: slice) -> Tensor:  # type: ignore[override]
        first, *others = self
        x: Tensor = first(obs, tasks)
        for layer in others:
            x = layer(x)
        return x


def _initialise(network: nn.Module, output: TaskLinear, output_gain: float, generator: torch.Generator) -> None:
    """Orthogonal weights with gain sqrt(2), zero biases; the output layer's weights scaled by `output_gain`."""
    for layer in network.modules():
        if isinstance(layer, TaskLinear):
            nn.init.orthogonal_(layer.weight, gain=sqrt(2), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        output.weight *= output_gain


class Actor(nn.Module):
    """Diagonal Gaussian policy: a shared mean network and one log-standard-deviation row per task; no squashing."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _Trunk(shape, layernorm)
        self.mean = TaskLinear(shape.hidden[-1], shape.action_dim)
        self.log_std = nn.Parameter(torch.zeros(shape.n_tasks, shape.action_dim))
        _initialise(self, self.mean, 0.01, generator)

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """Action means (k, n, action_dim) of observations (k, n, obs_dim) of these of K tasks."""
        mean: Tensor = self.mean(self.trunk(obs, tasks))
        return mean


class Critic(nn.Module):
    """Shared value network with one scalar output z (Section 4.1); `layernorm` is the paper's LN-c."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _Trunk(shape, layernorm)
        self.output = TaskLinear(shape.hidden[-1], 1)
        _initialise(self, self.output, 1.0, generator)

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """z (k, n) of observations (k, n, obs_dim) of these of K tasks."""
        z: Tensor = self.output(self.trunk(obs, tasks)).squeeze(-1)
        return z


def count_parameters(*modules: nn.Module) -> int:
    """Numbers held in memory during training, optimizer state excluded (Section B.3)."""
    return sum(p.numel() for module in modules for p in module.parameters())

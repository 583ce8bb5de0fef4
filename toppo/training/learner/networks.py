"""The paper's actor and critic (Table B.1): ReLU networks over observation and task one-hot, shared by all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from toppo.capture import OneHotLinear, TaskLayerNorm, TaskLinear, TaskReLU


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of both networks: K tasks, lengths of an observation and of an action, and widths of the hidden layers."""

    n_tasks: int
    obs_dim: int
    action_dim: int
    hidden: tuple[int, ...]


class _Trunk(nn.Sequential):
    """Hidden layers: Linear, LayerNorm if asked for, ReLU.

    A Linear before a LayerNorm has no bias, because LayerNorm adds a shift of its own.
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
    """Set orthogonal weights with gain sqrt(2), and zero biases. Scale the output layer's weights by `output_gain`."""
    for layer in network.modules():
        if isinstance(layer, TaskLinear):
            nn.init.orthogonal_(layer.weight, gain=sqrt(2), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        output.weight *= output_gain


class Actor(nn.Module):
    """Diagonal Gaussian policy: one mean network for all tasks, one row of log-standard-deviations per task."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _Trunk(shape, layernorm)
        self.mean = TaskLinear(shape.hidden[-1], shape.action_dim)
        self.log_std = nn.Parameter(torch.zeros(shape.n_tasks, shape.action_dim))
        _initialise(self, self.mean, 0.01, generator)

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """Action means (k, n, action_dim) for observations (k, n, obs_dim) of these tasks."""
        mean: Tensor = self.mean(self.trunk(obs, tasks))
        return mean


class Critic(nn.Module):
    """Value network with one output z for all tasks (Section 4.1). With `layernorm` it is the paper's LN-c."""

    def __init__(self, shape: NetworkShape, layernorm: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = _Trunk(shape, layernorm)
        self.output = TaskLinear(shape.hidden[-1], 1)
        _initialise(self, self.output, 1.0, generator)

    def forward(self, obs: Tensor, tasks: slice = slice(None)) -> Tensor:
        """z (k, n) for observations (k, n, obs_dim) of these tasks."""
        z: Tensor = self.output(self.trunk(obs, tasks)).squeeze(-1)
        return z


def count_parameters(*modules: nn.Module) -> int:
    """Number of parameters of the modules, without the optimizer's state (Section B.3)."""
    return sum(p.numel() for module in modules for p in module.parameters())

"""The actor for simulators: a frozen copy in numpy on the CPU.

A policy call has only a few rows. For so few rows, numpy takes half the time of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from toppo.training.learner.networks import Actor


@dataclass
class _Layer:
    """One layer, y = norm(x W + b). There is a ReLU between layers."""

    weight: Float[np.ndarray, "in out"]
    bias: Float[np.ndarray, "out"]
    norm: tuple[Float[np.ndarray, "out"], Float[np.ndarray, "out"], float] | None
    """Gain, shift and epsilon of LayerNorm; None without one."""


class ActorPolicy:
    """A frozen copy of an actor, for simulators. See `toppo.training.envs.interface.Policy`.

    Limit numpy's BLAS to one thread around the calls of `act`. With more threads these take three times as long.
    """

    def __init__(self, actor: Actor) -> None:
        self._layers: list[_Layer] = []
        for module in [*actor.trunk, actor.mean]:
            if isinstance(module, nn.Linear):
                bias = np.zeros(module.out_features, np.float32) if module.bias is None else _array(module.bias)
                self._layers.append(_Layer(np.ascontiguousarray(_array(module.weight).T), bias, None))
            elif isinstance(module, nn.LayerNorm):
                self._layers[-1].norm = _array(module.weight), _array(module.bias), module.eps
        # The product with a one-hot picks one row of the first layer's weights.
        first = self._layers[0]
        n_obs = len(first.weight) - len(actor.log_std)
        first.weight, self._task_rows = first.weight[:n_obs], first.weight[n_obs:]
        self._std: Float[np.ndarray, "K A"] = np.exp(_array(actor.log_std))

    def act(self, obs: Float[np.ndarray, "m obs"], tasks: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the unclipped actions, (m, A) float32 each.

        Args:
            obs: observations without the task's one-hot.
            tasks: the index of each row's task.
        """
        x = obs.astype(np.float32)
        for i, layer in enumerate(self._layers):
            if i > 0:
                np.maximum(x, 0, out=x)
            x = x @ layer.weight
            if i == 0:
                x += self._task_rows[tasks]
            x += layer.bias
            if layer.norm is not None:
                gain, shift, epsilon = layer.norm
                x -= x.mean(axis=1, keepdims=True)
                x *= gain / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + epsilon)
                x += shift
        return x, self._std[tasks]


def _array(parameter: Tensor) -> np.ndarray:
    array: np.ndarray = parameter.detach().cpu().numpy().copy()
    return array

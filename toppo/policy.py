"""The actor as a simulator sees it: numpy in, numpy out, on the CPU, detached from training."""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Float, Int

from toppo.networks import Actor


class ActorPolicy:
    """A frozen CPU copy of an actor (`toppo.envs.interface.Policy`)."""

    def __init__(self, actor: Actor) -> None:
        actor = copy.deepcopy(actor).cpu().requires_grad_(False)
        self._layers = [*actor.trunk, actor.mean]
        self._one_hot = np.eye(len(actor.log_std), dtype=np.float32)
        self._std = actor.log_std.exp().numpy()

    def act(self, obs: Float[np.ndarray, "m obs"], tasks: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (m, A) float32 of the unclipped action."""
        inputs = np.concatenate([obs, self._one_hot[tasks]], axis=1, dtype=np.float32)
        with torch.inference_mode():
            x = torch.from_numpy(inputs)
            for layer in self._layers:
                x = layer.forward(x)  # on a few rows, calls of modules would take as long as their products
            return x.numpy(), self._std[tasks]

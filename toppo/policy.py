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
        self._actor = copy.deepcopy(actor).cpu().requires_grad_(False)
        self._one_hot = torch.eye(len(actor.log_std))
        self._std = self._actor.log_std.exp().numpy()

    def act(self, obs: Float[np.ndarray, "m obs"], tasks: Int[np.ndarray, "m"]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (m, A) float32 of the unclipped action."""
        with torch.inference_mode():
            x = torch.cat([torch.from_numpy(obs).float(), self._one_hot[torch.from_numpy(tasks)]], dim=1)
            return self._actor(x).numpy(), self._std[tasks]

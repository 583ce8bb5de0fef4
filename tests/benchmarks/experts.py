"""Meta-World's scripted experts as a policy of our environments. Worker processes import it from here."""

from __future__ import annotations

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from toppo.training.envs.sizes import ACTION_DIM


class Experts:
    """The scripted expert of every task, as a policy of our environments. The experts have no memory."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._experts = [ENV_POLICY_MAP[name]() for name in tasks]

    def act(self, obs: np.ndarray, tasks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The experts' actions, without noise."""
        mean = np.stack([self._experts[task].get_action(row) for row, task in zip(obs, tasks, strict=True)])
        return mean.astype(np.float32), np.zeros((len(obs), ACTION_DIM), np.float32)

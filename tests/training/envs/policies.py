"""Policies for the tests, importable by worker processes."""

from __future__ import annotations

import os

import numpy as np
from metaworld.policies import ENV_POLICY_MAP


class Expert:
    """Meta-World's own scripted experts, one a task."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._experts = [ENV_POLICY_MAP[task]() for task in tasks]

    def act(self, obs, tasks):
        mean = np.stack([self._experts[task].get_action(o) for o, task in zip(obs, tasks, strict=True)])
        return mean.astype(np.float32), np.zeros_like(mean, dtype=np.float32)


class Still:
    """Mean 0, standard deviation 1: actions are the workers' exploration noise."""

    def act(self, obs, tasks):
        zeros = np.zeros((len(obs), 4), np.float32)
        return zeros, zeros + 1


class Dies(Still):
    """Kills its worker process without a word, after some calls."""

    def __init__(self, after: int) -> None:
        self._left = after

    def act(self, obs, tasks):
        self._left -= 1
        if self._left < 0:
            os._exit(9)
        return super().act(obs, tasks)


class Fails(Still):
    """Raises in the worker."""

    def act(self, obs, tasks):
        raise RuntimeError("no such thing")


class NotANumber(Still):
    """Has no action for one task."""

    def __init__(self, task: int) -> None:
        self._task = task

    def act(self, obs, tasks):
        mean, std = super().act(obs, tasks)
        mean[tasks == self._task] = np.nan
        return mean, std

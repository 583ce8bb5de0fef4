"""The buffer of the agents' experience: a ring of transitions (O, A, R, O').

O is the joint observation before an action, A the joint action, R the reward and O' the observation after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_FIRST = 256
"""Number of transitions that the arrays can hold at first. It doubles until it reaches the capacity."""


@dataclass(frozen=True)
class Transitions:
    """B sampled transitions, float32. The rewards are not normalised."""

    observations: Float[np.ndarray, "B D"]
    actions: Float[np.ndarray, "B K"]
    rewards: Float[np.ndarray, "B"]
    next_observations: Float[np.ndarray, "B D"]


class ReplayBuffer:
    """The last `capacity` transitions. `begin` opens one with O and A, `end` completes it with R and O'.

    With stride 1 a transition begins with the observation that ended the one before, and the buffer keeps this
    observation once. With stride 2 each transition has two observations of its own.

    Args:
        capacity: number of transitions to keep.
        n_tasks: K.
        size: D, the length of a joint observation.
        stride: number of observations per transition.
    """

    names = ("observations", "actions", "rewards", "transitions")

    def __init__(self, capacity: int, n_tasks: int, size: int, stride: int) -> None:
        self._slots = capacity + 1  # one more for a transition that is still open
        self._capacity, self._stride = capacity, stride
        self.transitions = 0
        """Number of transitions completed so far, overwritten ones included."""
        self._observations = np.empty((0, size), dtype=np.float32)
        self._actions = np.empty((0, n_tasks), dtype=np.float32)
        self._rewards = np.empty(0, dtype=np.float32)

    def begin(self, observation: Float[np.ndarray, "D"], action: Float[np.ndarray, "K"]) -> None:
        """Open a transition with O and A."""
        slot = self.transitions % self._slots
        self._reach(self.transitions + 1)
        self._put(self.transitions * self._stride, observation)
        self._actions[slot] = action

    def end(self, observation: Float[np.ndarray, "D"], reward: float) -> None:
        """Complete the open transition with R and O'."""
        slot = self.transitions % self._slots
        self._reach(self.transitions + 2)
        self._put(self.transitions * self._stride + 1, observation)
        self._rewards[slot] = reward
        self.transitions += 1

    @property
    def observation_size(self) -> int:
        """D, the length of a joint observation."""
        return self._observations.shape[1]

    def __len__(self) -> int:
        return min(self.transitions, self._capacity)

    def sample(self, n: int, rng: np.random.Generator) -> Transitions:
        """n transitions, drawn uniformly from those in the buffer, with replacement."""
        chosen = self.transitions - 1 - rng.integers(0, len(self), n)
        first = chosen * self._stride
        slots, rows = chosen % self._slots, self._slots * self._stride
        return Transitions(
            self._observations[first % rows],
            self._actions[slots],
            self._rewards[slots],
            self._observations[(first + 1) % rows],
        )

    def reward_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the rewards in the buffer. The deviation is 1 where all rewards are equal."""
        rewards = self._rewards[: self.transitions].astype(np.float64)
        if self.transitions >= self._slots:
            rewards = np.delete(rewards, self.transitions % self._slots)  # the slot of the open transition
        deviation = float(rewards.std())
        return float(rewards.mean()), deviation if deviation > 0 else 1.0

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the buffer's arrays."""
        used = min(self.transitions + 1, self._slots)
        return {
            "observations": self._observations[: used * self._stride].copy(),
            "actions": self._actions[:used].copy(),
            "rewards": self._rewards[:used].copy(),
            "transitions": np.array(self.transitions),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back arrays that `state` returned."""
        self.transitions = int(state["transitions"])
        self._observations, self._actions, self._rewards = (state[name].copy() for name in self.names[:3])

    def _put(self, index: int, observation: Float[np.ndarray, "D"]) -> None:
        self._observations[index % (self._slots * self._stride)] = observation

    def _reach(self, transitions: int) -> None:
        """Make room for this many transitions, the open one included."""
        have = len(self._actions)
        if have >= min(transitions, self._slots):
            return
        n = min(max(transitions, 2 * have, _FIRST), self._slots)
        self._observations = _grown(self._observations, n * self._stride)
        self._actions, self._rewards = _grown(self._actions, n), _grown(self._rewards, n)


def _grown(array: np.ndarray, n: int) -> np.ndarray:
    grown = np.zeros((n, *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown

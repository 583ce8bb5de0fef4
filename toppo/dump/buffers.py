"""Buffers that carry slabs (gradients J) from the training thread to the background thread."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.schema import Layout

Slot = dict[str, npt.NDArray[np.float32]]
"""One buffer: the slab J (K, P) of each side."""

READY = 1
"""Number of buffers made in advance. The rest are made when a snapshot needs them."""

MOST_BYTES = 2**27
"""Snapshots that wait for the background thread take no more memory than this, except that one may always wait."""

MOST_AHEAD = 64
"""The most snapshots that wait for the background thread."""


@dataclass(frozen=True)
class Minibatch:
    """A recorded minibatch on its way to disk.

    Attributes:
        slot: the buffer that holds its slabs, to be given back; {} if there is none.
        sides: the sides whose slab is in the buffer.
        small: its Grams and scalars, by array name.
    """

    slot: Slot
    sides: tuple[str, ...]
    small: dict[str, npt.NDArray[Any]]


def ahead(layout: Layout) -> int:
    """How many snapshots may wait for the background thread, at least one."""
    specs = layout.arrays(1, 1).values()
    size = sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in specs if spec.steps)
    return max(1, min(MOST_AHEAD, MOST_BYTES // max(size, 1)))


class Buffers:
    """As many buffers as the snapshots need that may wait. So recording needs no wait, and memory stays bounded.

    Args:
        layout: layout of the dump.
        check: raises if the background thread failed, because that thread then gives no buffer back.
    """

    def __init__(self, layout: Layout, check: Callable[[], None]) -> None:
        self._layout, self._check = layout, check
        self._left = max(READY, ahead(layout) * layout.minibatches)
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        if layout.slabs:
            for _ in range(READY):
                self._free.put(self._new())

    def take(self) -> Slot:
        """A free buffer, for the training thread. Blocks while there is none.

        Raises:
            DumpError: the background thread failed.
        """
        while True:
            try:
                return self._free.get(block=not self._left, timeout=0.2)
            except queue.Empty:
                self._check()
                if self._left:
                    return self._new()

    def give_back(self, slot: Slot) -> None:
        """Free a buffer again, from the background thread."""
        self._free.put(slot)

    def _new(self) -> Slot:
        self._left -= 1
        K = len(self._layout.tasks)
        # written, not only allocated, so that the first copy into it does not pay for the page faults
        return {side: np.full((K, self._layout.parameters(side)), 0, np.float32) for side in self._layout.sides}

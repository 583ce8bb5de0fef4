"""Capture: from per-task losses to per-task gradients and their Gram. It needs torch.

J (K, P) holds the gradients of K tasks with respect to the P parameters that the tasks share, one row per task. We call
it a slab. Its Gram is G = J J' (K, K).

`record` takes any torch module and any training loop. A `Recorder` walks the losses of each step (`graph`, `walks`,
`samples`, `ways`), finds out which parameters are shared (`sharing`), and writes the Gram of every layer (`rows`) to a
dump (`log`).

`TaskLinear`, `OneHotLinear`, `TaskLayerNorm` and `TaskReLU` are layers whose per-task gradients cost one backward pass.
A `Slab` collects them and computes G. The trainer of this package uses these.

Names are loaded when they are first used, so that `toppo.capture.adapters.jax` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toppo.capture.errors import CaptureError
    from toppo.capture.layers import OneHotLinear, TaskLayer, TaskLayerNorm, TaskLinear, TaskReLU, with_one_hot
    from toppo.capture.recorder import Recorder, record
    from toppo.capture.slab import Slab

__all__ = [
    "CaptureError",
    "OneHotLinear",
    "Recorder",
    "Slab",
    "TaskLayer",
    "TaskLayerNorm",
    "TaskLinear",
    "TaskReLU",
    "record",
    "with_one_hot",
]

_HOMES = {"CaptureError": "errors", "Recorder": "recorder", "Slab": "slab", "record": "recorder"}
"""Module of each name. All others in `__all__` are in `layers`."""


if not TYPE_CHECKING:  # a type checker would conclude from `__getattr__` that every name exists

    def __getattr__(name: str) -> Any:
        """The public name, imported on its first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'layers')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

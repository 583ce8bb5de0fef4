"""Capture: from per-task losses to per-task gradients and their Gram. It needs torch.

J (K, P) holds the gradients of K tasks with respect to the P parameters that the tasks share, one row per task. We call
it a slab. Its Gram is G = J J' (K, K).

`record` takes any torch module and any training loop. A `Recorder` walks the losses of each step (`graph`, `walks`,
`samples`, `ways`), finds out which parameters are shared (`sharing`), and writes the Gram of every layer (`rows`) to a
dump (`log`).

`TaskLinear`, `OneHotLinear`, `TaskLayerNorm` and `TaskReLU` are layers whose per-task gradients cost one backward pass.
A `Slab` collects them and computes G. The trainer of this package uses these.
"""

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

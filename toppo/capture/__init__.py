"""Capture: from per-task losses to per-task gradients and their Gram. It needs torch.

J (K, P) holds the gradients of K tasks with respect to the P parameters that all tasks share, one row per task. We call
it a slab. Its Gram is G = J J' (K, K). `TaskLinear`, `OneHotLinear`, `TaskLayerNorm` and `TaskReLU` are layers whose
per-task gradients cost one backward pass. A `Slab` collects them and computes G.
"""

from toppo.capture.layers import OneHotLinear, TaskLayer, TaskLayerNorm, TaskLinear, TaskReLU, with_one_hot
from toppo.capture.slab import Slab

__all__ = ["OneHotLinear", "Slab", "TaskLayer", "TaskLayerNorm", "TaskLinear", "TaskReLU", "with_one_hot"]

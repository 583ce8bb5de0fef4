"""Capture: from task losses to slabs J (K, P) and Grams G = J J' (K, K). Needs torch.

`TaskLinear`, `OneHotLinear`, `TaskLayerNorm` and `TaskReLU` are layers whose per-task gradients cost one backward pass.
A `Slab` collects them and gives their Gram.
"""

from toppo.capture.layers import OneHotLinear, TaskLayer, TaskLayerNorm, TaskLinear, TaskReLU, with_one_hot
from toppo.capture.slab import Slab

__all__ = ["OneHotLinear", "Slab", "TaskLayer", "TaskLayerNorm", "TaskLinear", "TaskReLU", "with_one_hot"]

"""Recording somebody else's multi-task training: ten binary tasks ("is it a 0?" ... "is it a 9?") on a shared trunk.

Run `python tests/dump/example_digits.py digits.zarr`, then `toppo-diag info digits.zarr`,
`toppo-diag heatmaps digits.zarr --side trunk` and so on. The lines that record are marked. Any combiner's name after
the path weighs the tasks: `taskforce` learns to.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from toppo.combiners import make
from toppo.dump import DumpWriter, ParameterSlice, gram  # <- records

STEPS, EVERY = 300, 30


def train(path: str, combiner_spec: str = "mean") -> list[float]:
    """Train for STEPS full-batch steps, recording every EVERY-th; returns the per-task accuracies."""
    torch.manual_seed(0)
    combiner, orders = make(combiner_spec), np.random.default_rng(0)
    images, digits = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32)
    y = torch.nn.functional.one_hot(torch.tensor(digits), 10).float()

    trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    heads = nn.Linear(32, 10)
    optimiser = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=1e-2)
    shared = dict(trunk.named_parameters())

    tasks = [f"digit {i}" for i in range(10)]
    layers = [ParameterSlice(name, tuple(p.shape)) for name, p in shared.items()]  # <- records (or just their number)
    with DumpWriter.create(path, tasks=tasks, sides={"trunk": layers}) as dump:  # <- records
        for step in range(STEPS):
            logits = heads(trunk(x))
            losses = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0)
            parts = torch.autograd.grad(
                losses, list(shared.values()), torch.eye(10), retain_graph=True, is_grads_batched=True
            )
            slab = torch.cat([part.flatten(1) for part in parts], dim=1)
            order = combiner.draw_order(orders, len(tasks))
            w = combiner.combine(gram(slab.numpy()), losses=losses.detach().numpy(), order=order).weights
            if step % EVERY == 0:
                accuracy = ((logits > 0) == (y > 0.5)).float().mean(0)
                dump.record(step=step, trunk=slab, loss=losses, accuracy=accuracy, trunk_weights=w)  # <- records
            optimiser.zero_grad()
            (torch.tensor(w, dtype=torch.float32) * losses).sum().backward()
            optimiser.step()
    accuracies: list[float] = ((heads(trunk(x)) > 0) == (y > 0.5)).float().mean(0).tolist()
    return accuracies


if __name__ == "__main__":
    print("accuracy per task:", [round(a, 3) for a in train(*sys.argv[1:])])

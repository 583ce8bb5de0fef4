"""Four tasks on scikit-learn's digits, which share one trunk: the supervised problem of the TaskForce benchmarks.

Which digit (cross-entropy, accuracy), odd or even (logistic, accuracy), its value as a number (squared error), and the
image back from the 16 features all share (squared error): losses from 0.02 to 20. The combiners weigh the gradients of
the shared trunk; each head follows its own loss. Delta-m is against each task trained alone on a network of its own, as
long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.taskforce_methods import look_again, weigh
from toppo.combiners import Combiner

BATCH, LR = 128, 2e-3
METRICS = {"digit, accuracy": 1, "parity, accuracy": 1, "value, MSE": -1, "pixels, MSE": -1}
"""What is measured on the held-out third; 1 where more is better."""
TASKS = tuple(name.split(",")[0] for name in METRICS)

TURN, ZOOM, SHIFT = math.radians(25), 0.1, 1.0
"""Most that a moved image is turned, zoomed, and shifted in pixels."""
COPIES = 4
"""Moved copies of each held-out image."""


@dataclass(frozen=True)
class Length:
    """How long a network trains.

    Attributes:
        steps: number of minibatches.
        moved: whether each image is turned, zoomed and shifted at random, each time anew. Long runs need this: they
            would learn the 1,198 images by heart.
    """

    steps: int
    moved: bool


SHORT = Length(1000, moved=False)
LONG = Length(10_000, moved=True)


@dataclass(frozen=True)
class Digits:
    """Images in 0..1 and digits, as tensors."""

    x: Tensor
    digit: Tensor

    def __getitem__(self, rows: Tensor) -> Digits:
        return Digits(self.x[rows], self.digit[rows])

    def moved(self, generator: torch.Generator) -> Digits:
        """Each image turned, zoomed and shifted at random."""
        turn, zoom, right, down = 2 * torch.rand((4, len(self.x)), generator=generator) - 1
        turn, zoom = turn * TURN, 1 + zoom * ZOOM
        pixel = 2 / 8  # affine_grid's coordinates run from -1 to 1
        rows = [
            torch.stack([zoom * turn.cos(), -zoom * turn.sin(), right * SHIFT * pixel], dim=1),
            torch.stack([zoom * turn.sin(), zoom * turn.cos(), down * SHIFT * pixel], dim=1),
        ]
        images = self.x.view(-1, 1, 8, 8)
        grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
        return Digits(functional.grid_sample(images, grid, align_corners=False).view(-1, 64), self.digit)


class Network(nn.Module):
    """A shared trunk to 16 features, and a linear head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(16, n) for n in (10, 1, 1, 64))

    def losses(self, features: Sequence[Tensor], data: Digits) -> Tensor:
        """The four losses, (4,), from each head's own copy of the features."""
        digit, odd, value, pixels = (head(f) for head, f in zip(self.heads, features, strict=True))
        return torch.stack(
            [
                functional.cross_entropy(digit, data.digit),
                functional.binary_cross_entropy_with_logits(odd[:, 0], (data.digit % 2).float()),
                functional.mse_loss(value[:, 0], data.digit.float()),
                functional.mse_loss(pixels, data.x),
            ]
        )


def gradients(network: Network, data: Digits, tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradients of some tasks on the trunk, (K, P), and losses, (K,). The heads' own gradients go into `.grad`."""
    features = network.trunk(data.x)
    seen = [features.detach().requires_grad_() for _ in network.heads]
    losses = network.losses(seen, data)[list(tasks)]
    losses.sum().backward()
    back = torch.stack([torch.zeros_like(s) if s.grad is None else s.grad for s in seen])[list(tasks)]
    rows = torch.autograd.grad(features, list(network.trunk.parameters()), back, is_grads_batched=True)
    return torch.cat([row.flatten(start_dim=1) for row in rows], dim=1), losses.detach()


@torch.no_grad()
def metrics_of(network: Network, data: Digits) -> np.ndarray:
    """`METRICS` on data."""
    features = network.trunk(data.x)
    digit, odd = network.heads[0](features), network.heads[1](features)
    right = (digit.argmax(dim=1) == data.digit).float().mean()
    parity = ((odd[:, 0] > 0) == (data.digit % 2 == 1)).float().mean()
    return np.array([right, parity, *network.losses([features] * 4, data)[2:]])


def split(seed: int) -> tuple[Digits, Digits]:
    """Two thirds to train on, one third to measure on."""
    images, digits = load_digits(return_X_y=True)
    data = Digits(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    n = 2 * len(order) // 3
    return data[order[:n]], data[order[n:]]


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes:
        metrics: `METRICS` on the held-out third.
        weights: the combiner's weights, (steps, K).
        norms: lengths of the gradients, (steps, K).
    """

    metrics: np.ndarray
    weights: np.ndarray
    norms: np.ndarray


def train(combiner: Combiner, seed: int, length: Length, tasks: Sequence[int] = range(4)) -> Trained:
    """Train a network with a combiner on the trunk, over some of the tasks."""
    torch.manual_seed(seed)
    network = Network()
    training, held_out = split(seed)
    batches, moves = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    trunk = list(network.trunk.parameters())
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    rng = np.random.default_rng(seed)
    weights_used, norms = [], []
    for _ in range(length.steps):
        batch = training[torch.randint(len(training.x), (BATCH,), generator=batches)]
        batch = batch.moved(moves) if length.moved else batch

        def look(batch: Digits = batch) -> tuple[np.ndarray, np.ndarray]:
            optimiser.zero_grad()
            J, losses = gradients(network, batch, tasks)
            return J.double().numpy(), losses.double().numpy()

        weights, J, _ = weigh(combiner, look, rng)
        step = torch.from_numpy(weights @ J).float().split([p.numel() for p in trunk])
        for p, part in zip(trunk, step, strict=True):
            p.grad = part.view(p.shape)
        optimiser.step()
        look_again(combiner, look)
        weights_used.append(weights)
        norms.append(np.linalg.norm(J, axis=1))
    if length.moved:
        copies = held_out[torch.arange(len(held_out.x)).repeat(COPIES)]
        held_out = copies.moved(torch.Generator().manual_seed(2000))
    return Trained(metrics_of(network, held_out), np.array(weights_used), np.array(norms))


def delta_m(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Delta-m in percent: mean over metrics of how much worse than the reference; (N, 4) and (N, 4) to (N,)."""
    signs = np.array(list(METRICS.values()))
    drop: np.ndarray = 100 * np.mean(-signs * (found - reference) / reference, axis=1)
    return drop

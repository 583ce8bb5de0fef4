"""Small networks of many kinds with one loss per task, and the per-task gradients of an independent float64 loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TASKS = ("left", "middle", "right")
N = 12  # samples in a batch


class Heads(nn.Module):
    """An encoder with one head per task."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList([nn.Linear(width, 2) for _ in TASKS])

    def forward(self, x: Tensor) -> list[Tensor]:
        z = self.encoder(x)
        return [head(z) for head in self.heads]


class Checkpointed(nn.Module):
    """A block whose activations are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.block = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.block, self.first(x), use_reentrant=self.reentrant)
        return y


class LastState(nn.Module):
    """The last output of a recurrent net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.GRU(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)[0][:, -1]
        return y


class Words(nn.Module):
    """Embedding and attention, averaged over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.embedding(x)).mean(1)
        return y


class Experts(nn.Module):
    """Two experts behind a soft gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(6, 2), nn.ModuleList([nn.Linear(6, 8) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1)
        return torch.stack([shares[:, i, None] * expert(x) for i, expert in enumerate(self.experts)]).sum(0)


def cnn(norm: bool = False) -> nn.Module:
    """Two convolutions, with BatchNorm between them if asked for."""
    middle = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), *middle, nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(16, 8)
    )


def mlp() -> nn.Module:
    """Two linear layers with LayerNorm."""
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8, bias=False))


def vectors() -> Tensor:
    """A batch (N, 6)."""
    return torch.randn(N, 6)


ENCODERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, vectors),
    "cnn": (cnn, lambda: torch.randn(N, 3, 7, 7)),
    "batchnorm": (lambda: cnn(norm=True), lambda: torch.randn(N, 3, 7, 7)),
    "attention": (Words, lambda: torch.randint(0, 9, (N, 5))),
    "recurrent": (LastState, lambda: torch.randn(N, 4, 6)),
    "checkpointed": (lambda: Checkpointed(False), vectors),
    "experts": (Experts, vectors),
}
"""Kind -> (its encoder, a batch)."""


def build(kind: str, seed: int = 0) -> tuple[Heads, Tensor]:
    """A network of a kind, and a batch for it."""
    torch.manual_seed(seed)
    encoder, batch = ENCODERS[kind]
    return Heads(encoder(), 8), batch()


def all_samples(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Every task's loss depends on every sample."""
    return [((y - i) ** 2).mean() * (i + 1) for i, y in enumerate(outputs)]


def own_samples(outputs: Sequence[Tensor], samples: Tensor) -> list[Tensor]:
    """Every task's loss depends on its own samples alone."""
    return [((y - i)[samples == i] ** 2).mean() * (i + 1) for i, y in enumerate(outputs)]


def reference_gradients(
    model: nn.Module, losses: Callable[[nn.Module], Sequence[Tensor]], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Parameter -> (K, *shape): one backward pass per task, through a float64 copy of the model, from scratch.

    Args:
        model: the network.
        losses: computes K losses of a network. It must be the same at every call, with dropout too.
        names: the parameters.
    """
    twin = copy.deepcopy(model).double()
    parameters = dict(twin.named_parameters())
    found = {name: np.zeros((len(TASKS), *parameters[name].shape)) for name in names}
    for i in range(len(TASKS)):
        twin.zero_grad()
        torch.manual_seed(7)
        losses(twin)[i].backward()
        for name in names:
            grad = parameters[name].grad
            if grad is not None:
                found[name][i] = grad.numpy()
    return found


def grams(rows: dict[str, np.ndarray]) -> np.ndarray:
    """(L, K, K): G of every parameter, from (K, *shape) gradients."""
    flat = [r.reshape(len(r), -1) for r in rows.values()]
    return np.stack([r @ r.T for r in flat])

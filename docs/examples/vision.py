"""Multi-task vision: one small convolutional encoder, four tasks on the digits of scikit-learn.

The encoder learns to tell the digit, how the picture was turned, how much ink it has, and to remove noise from it.
Run `python docs/examples/vision.py dumps/vision`. The lines that record are marked.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import toppo  # <- records

TASKS = ["digit", "turn", "ink", "denoise"]
STEPS, BATCH = 300, 64


class Network(nn.Module):
    """An encoder that all tasks share, and one head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(32 * 4 * 4, 64), nn.ReLU()),
        )
        sizes = {"digit": 10, "turn": 4, "ink": 1, "denoise": 64}
        self.heads = nn.ModuleDict({task: nn.Linear(64, sizes[task]) for task in TASKS})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        seen = self.encoder(pictures[:, None])
        return {task: head(seen) for task, head in self.heads.items()}


def batch(pictures: Tensor, digits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Turned and noisy pictures, and what each task should say of them."""
    chosen = torch.randint(len(pictures), (BATCH,))
    turns = torch.randint(4, (BATCH,))
    clean = torch.stack([picture.rot90(int(n)) for picture, n in zip(pictures[chosen], turns, strict=True)])
    answers = {"digit": digits[chosen], "turn": turns, "ink": clean.mean((1, 2)), "denoise": clean.flatten(1)}
    return clean + 0.2 * torch.randn_like(clean), answers


def task_losses(said: dict[str, Tensor], answers: dict[str, Tensor]) -> dict[str, Tensor]:
    """One loss per task: cross-entropy for classes, mean squared error for numbers."""
    return {
        "digit": F.cross_entropy(said["digit"], answers["digit"]),
        "turn": F.cross_entropy(said["turn"], answers["turn"]),
        "ink": F.mse_loss(said["ink"].squeeze(1), answers["ink"]),
        "denoise": F.mse_loss(said["denoise"], answers["denoise"]),
    }


def train(path: str, combiner: str | None = None) -> str:
    """Train, and record every tenth step. A combiner such as "fairgrad" decides the step in place of the sum."""
    torch.manual_seed(0)
    data = load_digits()
    pictures, digits = torch.tensor(data.images / 16, dtype=torch.float32), torch.tensor(data.target)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    with toppo.record(path, network, tasks=TASKS, every=10, combiner=combiner) as recorder:  # <- records
        for _ in range(STEPS):
            x, answers = batch(pictures, digits)
            optimizer.zero_grad()
            said = network(x)
            right = (said["digit"].argmax(1) == answers["digit"]).float().mean()
            recorder.backward(task_losses(said, answers), digits_right=right)  # <- in place of sum(losses).backward()
            optimizer.step()
    return recorder.path


if __name__ == "__main__":
    train(*sys.argv[1:])

"""A physics-informed network for the heat equation u_t = u_xx / 10 on a rod of length 1, whose ends are kept at 0.

Four losses train one network: the equation, the ends of the rod, the start, and a few noisy measurements.
Run `python docs/examples/physics.py dumps/physics`. The lines that record are marked.
"""

import math
import sys

import torch
from torch import Tensor, nn

import toppo  # <- records

TASKS = ["equation", "ends", "start", "measurements"]
STEPS, POINTS, DIFFUSION = 1500, 128, 0.1


def exact(x: Tensor, t: Tensor) -> Tensor:
    """The solution for this start: two waves that fade at different speeds."""
    slow = torch.sin(math.pi * x) * torch.exp(-DIFFUSION * math.pi**2 * t)
    return slow + 0.5 * torch.sin(3 * math.pi * x) * torch.exp(-DIFFUSION * 9 * math.pi**2 * t)


def residual(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """u_t - u_xx / 10 of what the network says."""
    x, t = x.requires_grad_(), t.requires_grad_()
    u = network(torch.stack([x, t], 1)).squeeze(1)
    u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    return u_t - DIFFUSION * u_xx


def task_losses(network: nn.Module, measured: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """The mean squared error of each task, in the order of `TASKS`."""

    def error(x: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        return ((network(torch.stack([x, t], 1)).squeeze(1) - wanted) ** 2).mean()

    x, t, zero = torch.rand(POINTS), torch.rand(POINTS), torch.zeros(POINTS)
    return [
        (residual(network, x.clone(), t.clone()) ** 2).mean(),
        error(torch.randint(2, (POINTS,)).float(), t, zero),
        error(x, zero, exact(x, zero)),
        error(*measured),
    ]


def train(path: str, combiner: str | None = None) -> tuple[str, float]:
    """Train, and record every twentieth step. Return the dump and the largest error at the end."""
    torch.manual_seed(0)
    width = 32
    network = nn.Sequential(
        *(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    x, t = torch.rand(20), torch.rand(20)
    measured = x, t, exact(x, t) + 0.01 * torch.randn(20)
    with toppo.record(path, network, tasks=TASKS, every=20, combiner=combiner) as recorder:  # <- records
        for _ in range(STEPS):
            optimizer.zero_grad()
            recorder.backward(task_losses(network, measured))  # <- in place of sum(losses).backward()
            optimizer.step()
    grid = torch.cartesian_prod(torch.linspace(0, 1, 50), torch.linspace(0, 1, 50))
    with torch.no_grad():
        largest = (network(grid).squeeze(1) - exact(grid[:, 0], grid[:, 1])).abs().max().item()
    return recorder.path, largest


if __name__ == "__main__":
    print(train(*sys.argv[1:]))

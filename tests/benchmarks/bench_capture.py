"""What per-task gradients of any network cost: `python -m tests.benchmarks.bench_capture [--quick]`.

For each network and K: every way of `toppo.record`, and TorchJD's autogram, beside one plain step, in one run. Each
task has samples of its own. A step is a forward pass, a backward pass and, except for `plain`, the Gram of every layer.
Times are medians, and ratios are to `plain`. Memory is how far the resident size of a fresh process rises in one step.

The last columns are the shares of the training time that recording takes at every = 100 and at every = 1000. A step of
training is there the plain step with Adam. The memory needs Linux.
"""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from toppo.capture.losses import task_losses
from toppo.capture.rows import Rows
from toppo.capture.samples import Samples
from toppo.capture.ways import Way

ROUNDS, LONG = 9, 10.0
"""A way is timed this often, but only three times if that takes more than LONG seconds."""


class Words(nn.Module):
    """A small transformer: two layers of width 64 over 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.layers(self.embedding(x)).mean(1))
        return y


def mlp() -> nn.Module:
    """The paper's critic: three hidden layers of 400 with LayerNorm."""
    widths = (49, 400, 400, 400)
    hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(400, 1))


def cnn() -> nn.Module:
    """Four convolutions of 32 to 64 channels on images of 32 x 32."""
    widths = (3, 32, 32, 64, 64)
    convolutions = [
        layer
        for i, (a, b) in enumerate(itertools.pairwise(widths))
        for layer in (nn.Conv2d(a, b, 3, stride=1 + i % 2, padding=1), nn.ReLU())
    ]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 8 * 8, 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], int]] = {
    "MLP": (mlp, lambda n: torch.randn(n, 49), 64),
    "CNN": (cnn, lambda n: torch.randn(n, 3, 32, 32), 8),
    "transformer": (Words, lambda n: torch.randint(0, 1000, (n, 16)), 8),
}
"""Name -> (network, batch of n, samples per task)."""


def steps(name: str, n_tasks: int) -> dict[str, Callable[[], object]]:
    """Way -> one step of it, on one network and batch."""
    build, batch, per_task = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), batch(n_tasks * per_task)
    parameters = list(model.parameters())
    samples = Samples(torch.arange(n_tasks).repeat_interleave(per_task), n_tasks)
    tasks = [str(i) for i in range(n_tasks)]

    def losses() -> Tensor:
        errors: Tensor = (model(x) - 1) ** 2
        return errors.reshape(n_tasks, -1).mean(1)

    def plain() -> None:
        model.zero_grad()
        losses().sum().backward()  # type: ignore[no-untyped-call]

    def recorded(way: Way) -> Callable[[], object]:
        def step() -> Tensor:
            model.zero_grad()
            rows = Rows(parameters, n_tasks, keep=False)
            with way.capturing(task_losses(losses(), tasks), parameters, rows, samples) as total:
                total.backward()  # type: ignore[no-untyped-call]
            return rows.grams().cpu()

        return step

    # PyTorch's attention lays sequences out with time first; `toppo.record` finds this out by itself.
    first = tuple("self_attn.in_proj" in n or "self_attn.out_proj" in n for n, _ in model.named_parameters())
    found: dict[str, Callable[[], object]] = {
        "plain": plain,
        "samples": recorded(Way("samples", first)),
        "walks": recorded(Way("walks")),
        "vectorised": recorded(Way("vectorised")),
    }
    try:
        from torchjd.autogram import Engine
    except ImportError:
        return found
    twin = copy.deepcopy(model)  # the engine's hooks allow no other backward pass
    engine = Engine(twin, batch_dim=None)

    def autogram() -> Tensor:
        twin.zero_grad()
        values = ((twin(x) - 1) ** 2).reshape(n_tasks, -1).mean(1)
        gram: Tensor = engine.compute_gramian(values)
        values.sum().backward()
        return gram

    found["autogram"] = autogram
    return found


def train_step(name: str, n_tasks: int) -> Callable[[], object]:
    """The plain step with Adam."""
    build, batch, per_task = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), batch(n_tasks * per_task)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        ((model(x) - 1) ** 2).reshape(n_tasks, -1).mean(1).sum().backward()
        optimizer.step()

    return step


def _peak(name: str, n_tasks: int, way: str) -> float:
    torch.set_num_threads(1)
    all_steps = steps(name, n_tasks)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at the present size
    before = _resident()
    all_steps[way]()
    return _resident() - before


def _resident() -> float:
    """The highest resident size of this process since its last reset, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    quick = "--quick" in sys.argv
    torch.set_num_threads(1)
    print(f"{'network':13}{'K':>3}  {'way':12}{'ms':>9}{'ratio':>8}{'peak MB':>9}{'every 100':>11}{'every 1000':>12}")
    for name in NETWORKS:
        for n_tasks in (3, 10) if quick else (3, 10, 50):
            calls = {**steps(name, n_tasks), "train": train_step(name, n_tasks)}
            usable = {}
            for way, call in calls.items():
                try:
                    call()
                    usable[way] = call
                except Exception as error:
                    print(f"{name:13}{n_tasks:3}  {way:12} does not run: {type(error).__name__}: {str(error)[:60]}")
            times = {way: [seconds(call)] for way, call in usable.items()}
            for _ in range(3 if quick else ROUNDS):
                for way, call in usable.items():
                    if len(times[way]) < 3 or sum(times[way]) < LONG:
                        times[way].append(seconds(call))
            medians = {way: statistics.median(one) for way, one in times.items()}
            for way in usable:
                if way == "train":
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    peak = pool.apply(_peak, (name, n_tasks, way))
                extra = (medians[way] - medians["plain"]) / medians["train"]
                print(
                    f"{name:13}{n_tasks:3}  {way:12}{1e3 * medians[way]:9.1f}{medians[way] / medians['plain']:8.2f}"
                    f"{peak:9.0f}{extra / 100:11.1%}{extra / 1000:12.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

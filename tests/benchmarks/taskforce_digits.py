"""Four tasks on scikit-learn's digits: `python -m tests.benchmarks.taskforce_digits` writes figures/taskforce/digits*.

Which digit (cross-entropy, accuracy), odd or even (logistic, accuracy), its value as a number (squared error), and the
image back from the 16 features all share (squared error): losses from 0.02 to 20. Delta-m is against each task trained
alone on a network of its own, as long. The combiners weigh the gradients of the shared trunk; each head follows its own
loss. Second table: TaskForce's ablation.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.taskforce_methods import BASELINES, NORMALISED, TASKFORCE, look_again, weigh
from toppo.combiners import make

OUT = Path("figures/taskforce")
SEEDS, ABLATION_SEEDS = 5, 3
STEPS, BATCH, LR = 1000, 128, 2e-3
METRICS = {"digit, accuracy": 1, "parity, accuracy": 1, "value, MSE": -1, "pixels, MSE": -1}
"""What is measured on the held-out third; 1 where more is better."""

ABLATION = {
    "raw gradients, single agent (DDPG)": "taskforce:r_g=none,agents=single,observation=raw",
    "+ Gram": "taskforce:r_g=none,agents=single",
    "+ multi-agent": "taskforce:r_g=none,agents=ma",
    "+ centralised training": "taskforce:r_g=none,agents=ct",
    "+ decentralised execution": "taskforce:r_g=none",
    "+ r_G": "taskforce:r_g=norm",
    "+ r_G, one shared critic": "taskforce:r_g=norm,critics=shared",
    "+ r_G, Strategy 2 (same batch again)": "taskforce:r_g=norm,strategy=same",
    "+ r_G, agents updated every 10th step": "taskforce:r_g=norm,every=10",
}


@dataclass(frozen=True)
class Digits:
    """Images in 0..1 and digits, as tensors."""

    x: Tensor
    digit: Tensor

    def __getitem__(self, rows: Tensor) -> Digits:
        return Digits(self.x[rows], self.digit[rows])


class Network(nn.Module):
    """A shared trunk to 16 features, and a linear head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(16, n) for n in (10, 1, 1, 64))

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each head says."""
        features = self.trunk(x)
        return [head(features) for head in self.heads]


def losses_of(network: Network, data: Digits) -> Tensor:
    """The four losses, (4,)."""
    digit, odd, value, pixels = network(data.x)
    return torch.stack(
        [
            functional.cross_entropy(digit, data.digit),
            functional.binary_cross_entropy_with_logits(odd[:, 0], (data.digit % 2).float()),
            functional.mse_loss(value[:, 0], data.digit.float()),
            functional.mse_loss(pixels, data.x),
        ]
    )


@torch.no_grad()
def metrics_of(network: Network, data: Digits) -> np.ndarray:
    """`METRICS` on data."""
    digit, odd, _, _ = network(data.x)
    right = (digit.argmax(dim=1) == data.digit).float().mean()
    parity = ((odd[:, 0] > 0) == (data.digit % 2 == 1)).float().mean()
    return np.array([right, parity, *losses_of(network, data)[2:]])


def split(seed: int) -> tuple[Digits, Digits]:
    """Two thirds to train on, one third to measure on."""
    images, digits = load_digits(return_X_y=True)
    data = Digits(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    n = 2 * len(order) // 3
    return data[order[:n]], data[order[n:]]


def train(spec: str, seed: int, tasks: Sequence[int] = range(4)) -> np.ndarray:
    """Metrics after STEPS steps with a combiner on the trunk, over some of the tasks."""
    torch.manual_seed(seed)
    network = Network()
    training, held_out = split(seed)
    batches = torch.Generator().manual_seed(seed)
    trunk = list(network.trunk.parameters())
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    combiner = make(f"{spec},seed={seed}" if spec.startswith("taskforce") else spec)
    rng = np.random.default_rng(seed)
    chosen = list(tasks)
    for _ in range(STEPS):
        batch = training[torch.randint(len(training.x), (BATCH,), generator=batches)]

        def look(batch: Digits = batch) -> tuple[np.ndarray, np.ndarray]:
            losses = losses_of(network, batch)[chosen]
            rows = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
            J = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
            optimiser.zero_grad()
            losses.sum().backward()  # the heads' own gradients
            return J.double().numpy(), losses.detach().double().numpy()

        weights, J, _ = weigh(combiner, look, rng)
        step = torch.from_numpy(weights @ J).float().split([p.numel() for p in trunk])
        for p, part in zip(trunk, step, strict=True):
            p.grad = part.view(p.shape)
        optimiser.step()
        look_again(combiner, look)
    return metrics_of(network, held_out)


def alone(seed: int) -> np.ndarray:
    """Metrics of each task trained by itself."""
    return np.array([train("mean", seed, [k])[k] for k in range(4)])


def delta_m(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Delta-m in percent: mean over metrics of how much worse than the reference; (N, 4) and (N, 4) to (N,)."""
    signs = np.array(list(METRICS.values()))
    drop: np.ndarray = 100 * np.mean(-signs * (found - reference) / reference, axis=1)
    return drop


def table(results: Mapping[str, np.ndarray], reference: np.ndarray, seconds: Mapping[str, float]) -> str:
    """Markdown: mean metrics, Delta-m with its standard deviation over seeds, milliseconds a step."""
    lines = [f"| method | {' | '.join(METRICS)} | Δm | ms a step |", "|---" * (len(METRICS) + 3) + "|"]
    for method, found in results.items():
        d = delta_m(found, reference[: len(found)])
        means = [f"{v:.3f}" if v < 10 else f"{v:.2f}" for v in found.mean(axis=0)]
        means[3] = f"{found[:, 3].mean():.4f}"
        cost = f"{1e3 * seconds[method]:.1f}" if method in seconds else ""
        lines.append(f"| {method} | {' | '.join(means)} | {d.mean():+.1f} ± {d.std(ddof=1):.1f} % | {cost} |")
    return "\n".join(lines)


def main() -> None:
    """Train all, write the table."""
    torch.set_num_threads(1)
    reference = np.stack([alone(seed) for seed in range(SEEDS)])
    results: dict[str, np.ndarray] = {"STL (single-task learning)": reference}
    seconds: dict[str, float] = {}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["table", "method", "spec", "seed", *METRICS, "delta_m"])
    tables = {"methods": (SEEDS, {**BASELINES, **TASKFORCE, **NORMALISED}), "ablation": (ABLATION_SEEDS, ABLATION)}
    for name, (n, methods) in tables.items():
        for method, spec in methods.items():
            began = time.process_time()
            results[method] = np.stack([train(spec, seed) for seed in range(n)])
            seconds[method] = (time.process_time() - began) / (n * STEPS)
            d = delta_m(results[method], reference[:n])
            for seed, (found, one) in enumerate(zip(results[method], d, strict=True)):
                rows.writerow([name, method, spec, seed, *found.round(6), round(one, 3)])
            print(f"{method:48} {d.mean():+7.2f} ± {d.std(ddof=1):.2f} %  {1e3 * seconds[method]:.2f} ms", flush=True)
            OUT.mkdir(parents=True, exist_ok=True)  # what there is, each time: the whole takes a quarter of an hour
            (OUT / "digits.csv").write_text(text.getvalue())
            wanted = [
                [m for m in results if m in t or (m.startswith("STL") and k == 0)]
                for k, (_, t) in enumerate(tables.values())
            ]
            shown = [table({m: results[m] for m in some}, reference, seconds) for some in wanted if some]
            (OUT / "digits.md").write_text("\n\n".join(shown) + "\n")


if __name__ == "__main__":
    main()

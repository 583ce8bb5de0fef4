"""Four tasks on scikit-learn's digits: `python -m tests.benchmarks.taskforce_digits` writes figures/taskforce/digits*.

The problem is that of `digits`, for a thousand steps. First table: methods (Tables 8 and 9 of the appendix). Second:
TaskForce's ablation.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.digits import METRICS, SHORT, delta_m, train
from tests.benchmarks.taskforce_methods import BASELINES, NORMALISED, TASKFORCE, make_seeded

OUT = Path("figures/taskforce")
SEEDS, ABLATION_SEEDS = 5, 3

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


def trained(spec: str, seed: int, tasks: Sequence[int] = range(4)) -> np.ndarray:
    """Metrics of a short run."""
    return train(make_seeded(spec, seed), seed, SHORT, tasks).metrics


def alone(seed: int) -> np.ndarray:
    """Metrics of each task trained by itself."""
    return np.array([trained("mean", seed, [k])[k] for k in range(4)])


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
            results[method] = np.stack([trained(spec, seed) for seed in range(n)])
            seconds[method] = (time.process_time() - began) / (n * SHORT.steps)
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

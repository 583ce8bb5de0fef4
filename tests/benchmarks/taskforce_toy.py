"""TaskForce where the answer is known: `python -m tests.benchmarks.taskforce_toy` writes figures/taskforce/toy*.

Two tasks in the plane, as in CAGrad (Liu et al., 2021, Appendix A), the first scaled by 0.1 as in Nash-MTL, and shifted
to be positive (gradients and Pareto set stay); three tasks, round bowls whose Pareto set is the triangle of their
centres, scaled by 0.01, 1, 100. Every method walks from five starts with Adam. Two measures of where a walk ends: its
distance to the Pareto set, in the plane, and the worst task's loss without its scale, which says whom it forgot.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

from tests.benchmarks.taskforce_methods import BASELINES, NORMALISED, TASKFORCE, Adam, look_again, make_seeded, weigh
from toppo_diag.plots.style import PAGE_WIDTH, paper_style

OUT = Path("figures/taskforce")
STEPS, LR, EVERY = 2000, 2e-2, 10
NEAR = 0.2
"""A walk has arrived where it ends this close to the Pareto set."""
SHIFT = 21.0

DRAWN = ("mean", "CAGrad", "Nash-MTL", "FAMO", "TaskForce (r_L & r_G)", "TaskForce (r_L & r_G), normalised step")


@dataclass(frozen=True)
class Problem:
    """Losses in the plane with a known Pareto set.

    Attributes:
        name: of its files.
        evaluate: a point to gradients (K, 2) and losses (K,).
        scales: what the losses were multiplied by, (K,).
        starts: where the walks begin.
        pareto: points along the Pareto set; a closed outline where it is an area.
        distance: of a point to the Pareto set.
        box: of the drawing, x and y.
    """

    name: str
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    scales: np.ndarray
    starts: tuple[tuple[float, float], ...]
    pareto: np.ndarray
    distance: Callable[[np.ndarray], float]
    box: tuple[tuple[float, float], tuple[float, float]]


def two_task_losses(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L_1 = 0.1 (c_1 f_1 + c_2 g_1 + SHIFT), L_2 = c_1 f_2 + c_2 g_2 + SHIFT."""
    x, y = theta
    c1, c2 = max(np.tanh(y / 2), 0.0), max(np.tanh(-y / 2), 0.0)
    slope = (1 - np.tanh(y / 2) ** 2) / 2
    dc1, dc2 = slope * (y > 0), -slope * (y < 0)
    J, losses = np.empty((2, 2)), np.empty(2)
    for i, (offset, centre) in enumerate(((-3.5, 7.0), (3.5, -7.0))):
        u = -x / 2 + offset + np.tanh(y)
        f, inside = np.log(max(abs(u), 5e-6)) + 6, abs(u) > 5e-6
        df = np.array([-0.5, 1 - np.tanh(y) ** 2]) / u if inside else np.zeros(2)
        g = ((x - centre) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20
        dg = np.array([(x - centre) / 5, (y + 8) / 50])
        losses[i] = c1 * f + c2 * g + SHIFT
        J[i] = c1 * df + c2 * dg + np.array([0, dc1 * f + dc2 * g])
    scale = np.array([0.1, 1.0])
    return J * scale[:, None], losses * scale


def two_tasks() -> Problem:
    """CAGrad's toy. At y < 0 both losses are c_2 (bowl - 20): between the bowls' centres, at the best y for each x."""

    def best(x: float) -> float:
        # On the set the gradients are opposite, and the best mixture of the two has its minimum here.
        mix = (x + 7) / 14
        return float(minimize_scalar(lambda y: two_task_losses(np.array([x, y]))[1] @ [10 * mix, 1 - mix]).x)

    xs = np.linspace(-7, 7, 281)
    front = np.array([[x, best(x)] for x in xs])
    return Problem(
        "two",
        two_task_losses,
        np.array([0.1, 1.0]),
        ((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)),
        front,
        lambda p: float(np.linalg.norm(front - p, axis=1).min()),
        ((-10.5, 10.5), (-10.5, 10.5)),
    )


CENTRES = np.array([[-1.0, -0.6], [1.0, -0.6], [0.0, 1.1]])
SCALES = np.array([0.01, 1.0, 100.0])


def three_task_losses(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L_t = s_t (||theta - c_t||^2 / 2 + 0.05)."""
    apart = theta - CENTRES
    return SCALES[:, None] * apart, SCALES * ((apart**2).sum(axis=1) / 2 + 0.05)


def three_tasks() -> Problem:
    """Three round bowls: a convex combination of their gradients is 0 at just the points of the triangle."""

    def distance(p: np.ndarray) -> float:
        outside = []
        inside = True
        for a, b in zip(CENTRES, np.roll(CENTRES, -1, axis=0), strict=True):
            t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            outside.append(np.linalg.norm(p - a - t * (b - a)))
            edge, to = b - a, p - a
            inside &= bool(edge[0] * to[1] - edge[1] * to[0] >= 0)
        return 0.0 if inside else float(min(outside))

    return Problem(
        "three",
        three_task_losses,
        SCALES,
        ((-3.0, -2.5), (3.0, -2.5), (-3.0, 2.5), (3.0, 2.5), (0.0, -3.2)),
        np.vstack([CENTRES, CENTRES[:1]]),
        distance,
        ((-3.6, 3.6), (-3.6, 3.6)),
    )


def walk(problem: Problem, spec: str, start: tuple[float, float], seed: int) -> tuple[np.ndarray, float]:
    """A trajectory, every EVERY-th point of it, and the seconds it took."""
    combiner, rng = make_seeded(spec, seed), np.random.default_rng(seed)
    theta, adam = np.array(start), Adam(2, LR)
    points = [theta.copy()]
    began = time.process_time()
    for step in range(STEPS):
        weights, J, _ = weigh(combiner, lambda: problem.evaluate(theta), rng)
        adam.step(theta, weights @ J)
        look_again(combiner, lambda: problem.evaluate(theta))
        if (step + 1) % EVERY == 0:
            points.append(theta.copy())
    return np.array(points), time.process_time() - began


def draw(problems: list[Problem], walks: dict[tuple[str, str], list[np.ndarray]]) -> Figure:
    """Trajectories over contours of the sum of log losses; thick grey the Pareto set."""
    figure = Figure(figsize=(PAGE_WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(len(problems), len(DRAWN), sharex="row", sharey="row")
    for n, (problem, row) in enumerate(zip(problems, axes, strict=True)):
        xs, ys = (np.linspace(*side, 80) for side in problem.box)
        height = [[np.log(problem.evaluate(np.array([x, y]))[1]).sum() for x in xs] for y in ys]
        for method, ax in zip(DRAWN, row, strict=True):
            ax.contour(xs, ys, height, levels=12, colors="0.85", linewidths=0.4)
            ax.plot(*problem.pareto.T, color="0.55", linewidth=2.5, solid_capstyle="round", gid="pareto")
            for points in walks[problem.name, method]:
                ax.scatter(*points.T, c=np.linspace(0, 1, len(points)), cmap="viridis", s=0.8, linewidths=0)
                ax.plot(*points[0], "o", color="black", markersize=2)
                ax.plot(*points[-1], "*", color="#D62728", markersize=5, markeredgewidth=0)
            ax.set(xlim=problem.box[0], ylim=problem.box[1], aspect="equal")
            if n == 0:
                ax.set_title(method.replace(" (", "\n(").replace(", ", ",\n"), fontsize=6)
            if n == len(problems) - 1:
                ax.set_xlabel(r"$\theta_1$")
        row[0].set_ylabel(f"{problem.name} tasks\n" + r"$\theta_2$")
    return figure


def main() -> None:
    """Walk, write the table of distances and the trajectories, draw."""
    OUT.mkdir(parents=True, exist_ok=True)
    problems = [two_tasks(), three_tasks()]
    walks: dict[tuple[str, str], list[np.ndarray]] = {}
    with (OUT / "toy.csv").open("w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["problem", "method", "start_1", "start_2", "end_1", "end_2", "distance", "arrived", "worst_loss"]
        )
        for problem in problems:
            for method, spec in {**BASELINES, **TASKFORCE, **NORMALISED}.items():
                done = [walk(problem, spec, start, seed) for seed, start in enumerate(problem.starts)]
                walks[problem.name, method] = [points for points, _ in done]
                ends = [points[-1] for points, _ in done]
                apart = [problem.distance(end) for end in ends]
                worst = [(problem.evaluate(end)[1] / problem.scales).max() for end in ends]
                for start, end, d, w in zip(problem.starts, ends, apart, worst, strict=True):
                    table.writerow(
                        [problem.name, method, *start, *end.round(4), round(d, 4), int(d < NEAR), round(w, 4)]
                    )
                print(
                    f"{problem.name:6} {method:44} distance {np.mean(apart):6.2f} (worst {np.max(apart):5.2f}), "
                    f"arrived {sum(d < NEAR for d in apart)} of {len(apart)}, worst loss {np.mean(worst):6.2f}, "
                    f"{sum(s for _, s in done):5.1f} s",
                    flush=True,
                )
    with paper_style():
        figure = draw(problems, walks)
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
            figure.savefig(OUT / f"toy.{kind}", metadata=metadata)


if __name__ == "__main__":
    main()

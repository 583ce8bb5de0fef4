"""Table C.1 of the TOPPO paper, measured again: FairGrad solvers on five kinds of Gram, beside the paper's numbers.

The baselines are the published ones: scipy's least squares as FairGrad's authors call it, the SGD of their RL release,
and the paper's Algorithm C.2, cold and warm. The SGD is written in numpy here, so that it needs no torch. The original
is slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from toppo.combiners.blas import single_thread
from toppo.combiners.fairgrad import kkt_residual, solve
from toppo.combiners.fairgrad_paper import absolute_residual, solve_paper
from toppo_diag.analysis.tables import Row, Table

Structure = Literal["random", "orthogonal", "graded"]
Solver = Callable[[Float[np.ndarray, "K K"]], Float[np.ndarray, "K"]]

DIMENSION = 1024
"""D of Section C.5."""
TIMINGS = 7
"""Runs of each solver on each Gram; the first is discarded."""


@dataclass(frozen=True)
class Regime:
    """One row of Table C.1: a kind of Gram.

    Attributes:
        name: the paper's label.
        n_tasks: K.
        spread: largest gradient norm over the smallest.
        small: how many tasks are `spread` times shorter than the others.
        structure: "random" has Gaussian directions. In "orthogonal" the small tasks are orthogonal to all others.
            "graded" has random directions, and norms that are log-uniform over the spread.
        paper_ms: the paper's wall times in milliseconds, by solver.
        paper_kkt: the paper's residuals ||G w - 1/w||, by solver.
        paper_speedup: the paper's time of scipy over that of its own solver.
    """

    name: str
    n_tasks: int
    spread: float
    small: int
    structure: Structure
    paper_ms: dict[str, float]
    paper_kkt: dict[str, float]
    paper_speedup: float


@dataclass(frozen=True)
class SolverRow:
    """One solver on one regime, at alpha = 1.

    Attributes:
        regime: label of the row of Table C.1.
        solver: a name in `SOLVERS`.
        milliseconds: median wall time of a solve on one thread.
        kkt_residual: ||G w - 1/w||, the paper's measure.
        scale_free_residual: max_i |w_i (G w)_i - 1|.
        times_scipy: scipy's time over this solver's, from the same run (the paper's Speedup column).
        times_paper: the time of Algorithm C.2, warm, over this solver's.
        paper_milliseconds: the time in Table C.1; NaN for a solver that the table does not have.
        paper_kkt_residual: the residual in Table C.1; NaN for a solver that the table does not have.
    """

    regime: str
    solver: str
    milliseconds: float
    kkt_residual: float
    scale_free_residual: float
    times_scipy: float
    times_paper: float
    paper_milliseconds: float
    paper_kkt_residual: float


def solve_scipy(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K"]:
    """Weights w from FairGrad's own solver at alpha = 1 (Ban and Ji, 2024, supervised release).

    It is scipy.optimize.least_squares, started at 1 / K.
    """
    K = len(gram)

    def kkt(x: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
        value: np.ndarray = gram @ x - 1 / x
        return value

    weights: np.ndarray = least_squares(kkt, np.ones(K) / K, bounds=(0, np.inf)).x
    return weights


def solve_sgd(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K"]:
    """Weights w from the solver of FairGrad's RL release at alpha = 1: the best w of 20 steps of SGD.

    The loss is ||G w - 1/(w + 1e-8)||^2. Learning rate 0.1, momentum 0.5, gradient norm clipped to 1, w at least 1e-8.
    """
    K = len(gram)
    w = np.ones(K) / K
    velocity = np.zeros(K)
    best, best_loss = w, np.inf
    for _ in range(20):
        inverse = 1 / (w + 1e-8)
        error = gram @ w - inverse
        loss = float(error @ error)
        if loss < best_loss:
            best, best_loss = w, loss
        gradient = 2 * (gram @ error + error * inverse**2)
        gradient /= max(1.0, float(np.linalg.norm(gradient)))
        velocity = 0.5 * velocity + gradient
        w = np.maximum(w - 0.1 * velocity, 1e-8)
    return best


SOLVERS: dict[str, Solver] = {
    "scipy (FG paper)": solve_scipy,
    "SGD (FG-RL)": solve_sgd,
    "y-Newton (cold)": lambda gram: solve_paper(gram, start=np.full(len(gram), -np.log(len(gram)))).weights,
    "y-Newton (warm)": lambda gram: solve_paper(gram).weights,
    "ours": lambda gram: solve(gram).weights,
}
"""The solvers of Table C.1, in its order and under its names, then our own."""


PAPER_SOLVER = "y-Newton (warm)"
"""The paper's own solver, Algorithm C.2 from its diagonal start."""


def _regime(name: str, n_tasks: int, spread: float, small: int, structure: Structure, *paper: float) -> Regime:
    times, residuals = (dict(zip(SOLVERS, half, strict=False)) for half in (paper[:4], paper[4:8]))
    return Regime(name, n_tasks, spread, small, structure, times, residuals, paper[8])


REGIMES = (
    _regime("K=50, spread 1x", 50, 1.0, 0, "random", 14.5, 10.6, 0.43, 0.30, 1.8e-13, 5.0e1, 3.4e-7, 2.4e-5, 48),
    _regime("K=10, rand, spread 1e6", 10, 1e6, 0, "graded", 195, 9.0, 0.64, 0.14, 7.7e-10, 5.2e6, 2.7e-9, 4.8e-5, 1442),
    _regime("K=50, rand, spread 1e8", 50, 1e8, 1, "random", 733, 10.1, 0.84, 7.7, 5.6e-7, 5.6e1, 6.2e-3, 2.0e-2, 95),
    _regime(
        "K=50, perp, spread 1e8", 50, 1e8, 1, "orthogonal", 288, 10.2, 0.84, 0.22, 9.3e-11, 5.6e1, 6.2e-3, 3.2e-5, 1344
    ),
    _regime(
        "K=50, perp 25%, spread 1e8",
        50,
        1e8,
        12,
        "orthogonal",
        27.4,
        10.2,
        0.93,
        0.21,
        5.3e-3,
        7.8e1,
        7.9e-3,
        4.7e-5,
        131,
    ),
)
"""The five rows of Table C.1.

The paper does not say how it makes its rows with random directions. One small task in row 3 (as in row 4) and 12 of 50
in row 5 reproduce its residuals of the cold solver. In row 2, only norms on both sides of 1 give such an SGD residual.
"""


def regime_gram(regime: Regime, rng: np.random.Generator) -> Float[np.ndarray, "K K"]:
    """The Gram of K Gaussian gradients of dimension 1024, made as the regime says (Section C.5)."""
    J = rng.standard_normal((regime.n_tasks, DIMENSION))
    if regime.structure == "graded":
        J *= np.sqrt(regime.spread) ** rng.uniform(-1, 1, size=(regime.n_tasks, 1))
    active, small = np.split(J, [regime.n_tasks - regime.small])
    if regime.structure == "orthogonal":
        basis, _ = np.linalg.qr(active.T)
        small = small - (small @ basis) @ basis.T
    J = np.concatenate([active, small / regime.spread])
    gram = J @ J.T
    symmetric: np.ndarray = (gram + gram.T) / 2
    return symmetric


def bench_regime(
    regime: Regime, *, timings: int = TIMINGS, seed: int = 0, clock: Callable[[], float] = time.perf_counter
) -> list[SolverRow]:
    """Time every solver on one Gram of a regime, on one BLAS thread.

    Args:
        regime: one of `REGIMES`.
        timings: runs of each solver, at least 2. The first is discarded, and the median of the others is reported.
        seed: seed of the Gram.
        clock: gives the time in seconds.
    """
    gram = regime_gram(regime, np.random.default_rng(seed))
    median: dict[str, float] = {}
    weights: dict[str, Float[np.ndarray, "K"]] = {}
    with single_thread():
        for name, solver in SOLVERS.items():
            seconds = []
            for _ in range(timings):
                start = clock()
                weights[name] = solver(gram)
                seconds.append(clock() - start)
            median[name] = statistics.median(seconds[1:])
    return [
        SolverRow(
            regime=regime.name,
            solver=name,
            milliseconds=1e3 * median[name],
            kkt_residual=absolute_residual(gram, w),
            scale_free_residual=float(kkt_residual(gram, w)),
            times_scipy=median["scipy (FG paper)"] / median[name],
            times_paper=median["y-Newton (warm)"] / median[name],
            paper_milliseconds=regime.paper_ms.get(name, np.nan),
            paper_kkt_residual=regime.paper_kkt.get(name, np.nan),
        )
        for name, w in weights.items()
    ]


def solver_bench(regimes: Sequence[Regime] = REGIMES, *, timings: int = TIMINGS, seed: int = 0) -> list[SolverRow]:
    """Table C.1: the rows of every solver on each regime."""
    return [row for regime in regimes for row in bench_regime(regime, timings=timings, seed=seed)]


def bench_table(rows: Sequence[SolverRow]) -> Table:
    """The rows in the shape of Table C.1: a line for each regime, and cells "here (paper)"."""
    speedups = {regime.name: regime.paper_speedup for regime in REGIMES}
    lines = []
    for regime in dict.fromkeys(row.regime for row in rows):
        by_solver = {row.solver: row for row in rows if row.regime == regime}
        found = [by_solver[name] for name in SOLVERS]
        cells = (
            regime,
            *(_beside(row.milliseconds, row.paper_milliseconds, "{:.3g}") for row in found),
            *(_beside(row.kkt_residual, row.paper_kkt_residual, "{:.1e}") for row in found),
            _beside(by_solver[PAPER_SOLVER].times_scipy, speedups.get(regime, np.nan), "{:,.0f}x"),
        )
        lines.append(Row(cells))
    return Table(
        number="C.1",
        title="FairGrad solvers, measured on this machine",
        spans=("", *["ms"] * len(SOLVERS), *["KKT"] * len(SOLVERS), ""),
        header=("Regime", *SOLVERS, *SOLVERS, "Speedup"),
        rows=tuple(lines),
        notes=(
            "Each number is measured here, with the paper's in brackets",
            f"Speedup is scipy's time over that of {PAPER_SOLVER}",
            "KKT is the norm of the residual G w - 1/w",
        ),
        numbers=tuple(asdict(row) for row in rows),
        ours=("ours",),
    )


def _beside(here: float, paper: float, form: str) -> str:
    return form.format(here) + ("" if np.isnan(paper) else f" ({form.format(paper)})")

"""Per-task gradients J (K, P) to test combiners on, and hypothesis strategies over them."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40)
"""Examples are fixed, so a failure can be repeated on every machine."""


def gram_of(J: np.ndarray) -> np.ndarray:
    G = J @ J.T
    return (G + G.T) / 2


def clustered(
    rng: np.random.Generator, K: int, spread: float = 1.0, scale: float = 1.0, mix: float = 1.0
) -> np.ndarray:
    """K gradients around a few common directions, `mix` away from them. Norms lie around `scale` within `spread`."""
    P = int(rng.choice([2 * K + 2, 512]))
    centres = rng.normal(size=(int(rng.integers(1, K + 1)), P))
    J = centres[rng.integers(0, len(centres), K)] + mix * rng.normal(size=(K, P))
    J /= np.linalg.norm(J, axis=1, keepdims=True)
    return J * scale * spread ** rng.uniform(-0.5, 0.5, size=(K, 1))


def independent(rng: np.random.Generator, K: int, spread: float = 1.0, scale: float = 1.0) -> np.ndarray:
    """K well-conditioned gradients, about half of the pairs in conflict."""
    J = rng.normal(size=(K, 4 * K + 4))
    J /= np.linalg.norm(J, axis=1, keepdims=True)
    return J * scale * spread ** rng.uniform(-0.5, 0.5, size=(K, 1))


@st.composite
def well_conditioned(draw: st.DrawFn, max_spread: float = 1e2, min_tasks: int = 1) -> np.ndarray:
    """J with K from 1 to 50, a common scale from 1e-10 to 1e10, and norms within `max_spread`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    K = draw(st.integers(min_tasks, 50))
    spread = 10.0 ** draw(st.floats(0, np.log10(max_spread)))
    return independent(rng, K, spread, 10.0 ** draw(st.integers(-10, 10)))


@st.composite
def any_gradients(draw: st.DrawFn) -> np.ndarray:
    """As `well_conditioned`, also with clustered, rank-deficient, duplicate, dead and anti-parallel gradients."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    K = draw(st.integers(1, 50))
    scale = 10.0 ** draw(st.integers(-10, 10))
    kind = draw(st.sampled_from(["independent", "clustered", "low rank", "duplicates", "dead", "anti-parallel"]))
    J = independent(rng, K, 10.0 ** rng.uniform(0, 4), scale)
    if kind == "clustered":
        J = clustered(rng, K, 10.0 ** rng.uniform(0, 8), scale, mix=10.0 ** rng.uniform(-3, 1))
    if kind == "low rank":
        J = rng.normal(size=(K, int(rng.integers(1, K + 1)))) * scale
    if kind == "duplicates":
        J = J[rng.integers(0, K, K)]
    if kind == "dead":
        J[rng.random(K) < 0.3] = 0
    if kind == "anti-parallel":
        J[0] = -J[-1] * 3
    return J

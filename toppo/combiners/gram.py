"""What a Gram, and all else a combiner is handed, must be: checked in one place."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_ASYMMETRY = 1e-5
"""Allowed |G_ij - G_ji| over ||g_i|| ||g_j||: fp32 products summed in different orders differ by about 1e-6."""

_LEAST_NORM = float(np.sqrt(np.finfo(np.float64).tiny))


def check_gram(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """The Gram as a symmetric float64 array.

    An asymmetry within 1e-5 ||g_i|| ||g_j||, which fp32 products leave, is averaged away.

    Raises:
        ValueError: it is not a finite symmetric (K, K) matrix with K >= 1 and a non-negative diagonal.
    """
    gram = np.asarray(gram, dtype=np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"a Gram is a square matrix (K, K), one row per task, but this one's shape is {gram.shape}")
    if not gram.size:
        raise ValueError("the Gram has no tasks (K = 0): give the per-task gradients at least one row")
    if not np.isfinite(gram).all():
        i, j = np.argwhere(~np.isfinite(gram))[0]
        raise ValueError(
            f"the Gram is not finite: G[{i}, {j}] = {gram[i, j]}; look for NaN or overflow in the gradients"
        )
    squares = np.diagonal(gram)
    if squares.min() < 0:
        i = int(squares.argmin())
        raise ValueError(f"a Gram's diagonal holds squared norms, but G[{i}, {i}] = {squares[i]:g}; pass J @ J.T")
    if (gram == gram.T).all():
        return gram
    norms = np.sqrt(squares)
    excess = np.abs(gram - gram.T) - _ASYMMETRY * np.outer(norms, norms)
    if excess.max() > 0:
        i, j = np.unravel_index(excess.argmax(), excess.shape)
        different = f"G[{i}, {j}] = {gram[i, j]:g} and G[{j}, {i}] = {gram[j, i]:g}"
        raise ValueError(f"a Gram is symmetric, but {different}; pass J @ J.T")
    symmetric: np.ndarray = (gram + gram.T) / 2
    return symmetric


def check_grams(grams: Float[np.ndarray, "T K K"]) -> Float[np.ndarray, "T K K"]:
    """`check_gram` on a stack.

    Raises:
        ValueError: naming the index of the first Gram that is not one.
    """
    grams = np.asarray(grams, dtype=np.float64)
    if grams.ndim != 3 or grams.shape[1] != grams.shape[2] or not grams.shape[1]:
        raise ValueError(f"a stack of Grams must have shape (T, K, K) with K >= 1, but its shape is {grams.shape}")
    negative = (np.diagonal(grams, axis1=1, axis2=2) < 0).any()
    if np.isfinite(grams).all() and (grams == grams.swapaxes(1, 2)).all() and not negative:
        return grams
    checked = np.empty_like(grams)
    for t, gram in enumerate(grams):
        try:
            checked[t] = check_gram(gram)
        except ValueError as error:
            raise ValueError(f"Gram {t} of {len(grams)}: {error}") from None
    return checked


def check_losses(losses: Float[np.ndarray, "K"] | None, n_tasks: int, method: str) -> Float[np.ndarray, "K"]:
    """The tasks' losses as float64.

    Raises:
        ValueError: they are missing, of the wrong shape, or not finite.
    """
    if losses is None:
        raise ValueError(f"{method} weighs tasks by their losses: pass losses, shape ({n_tasks},)")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.shape != (n_tasks,):
        raise ValueError(f"{method} needs one loss per task, shape ({n_tasks},), but got {losses.shape}")
    if not np.isfinite(losses).all():
        raise ValueError(f"{method}: the loss of task {np.flatnonzero(~np.isfinite(losses))[0]} is not finite")
    return losses


def check_positive_losses(losses: Float[np.ndarray, "K"], method: str) -> None:
    """Refuse losses a method would take a logarithm or a ratio of.

    Raises:
        ValueError: naming the first task whose loss is not positive.
    """
    if losses.min() <= 0:
        i = int(losses.argmin())
        raise ValueError(
            f"{method} needs positive losses, but that of task {i} is {losses[i]:g}: weigh a critic with it"
        )


def check_order(order: Int[np.ndarray, "..."] | None, n_tasks: int, method: str) -> Int[np.ndarray, "..."]:
    """A drawn order as an integer array.

    Raises:
        ValueError: it is missing or does not hold integers.
    """
    if order is None:
        raise ValueError(f"{method} needs the order to visit tasks in: pass order=combiner.draw_order(rng, {n_tasks})")
    order = np.asarray(order)
    if not np.issubdtype(order.dtype, np.integer):
        raise ValueError(f"{method}: an order holds task numbers, but its dtype is {order.dtype}")
    return order


def alive_tasks(norms: Float[np.ndarray, "*T K"]) -> Bool[np.ndarray, "*T K"]:
    """Tasks with a gradient: ||g_i||^2 is a normal number. Below it has lost its digits, and with them the gradient its
    direction."""
    alive: np.ndarray = norms >= _LEAST_NORM
    return alive

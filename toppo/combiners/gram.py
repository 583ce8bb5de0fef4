"""Checks of everything that a combiner is given: the Gram, the losses, the order. Also which tasks are alive."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from toppo.combiners.errors import CombinerError

_ASYMMETRY = 1e-5
"""Allowed |G_ij - G_ji| over ||g_i|| ||g_j||. Float32 products summed in another order differ by about 1e-6."""

_LEAST_SQUARE = float(np.finfo(np.float64).tiny)
LEAST_NORM = float(np.sqrt(_LEAST_SQUARE))


def check_gram(gram: Float[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """The Gram as a symmetric float64 array.

    Float32 products leave an asymmetry. An asymmetry of up to 1e-5 ||g_i|| ||g_j|| is averaged away.

    Args:
        gram: G = J J' of the per-task gradients J (K, P).

    Raises:
        CombinerError: the Gram is not a finite symmetric (K, K) matrix with K >= 1 and a non-negative diagonal.

    Example:
        >>> check_gram([[1, 2], [2, 5]])
        array([[1., 2.],
               [2., 5.]])
    """
    gram = np.asarray(gram, dtype=np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise CombinerError(f"the Gram must be a square matrix (K, K), one row per task, but its shape is {gram.shape}")
    if not gram.size:
        raise CombinerError("the Gram has no tasks (K = 0): give gradients of at least one task")
    if not np.isfinite(gram).all():
        i, j = np.argwhere(~np.isfinite(gram))[0]
        raise CombinerError(
            f"the Gram is not finite: G[{i}, {j}] = {gram[i, j]}; look for NaN or overflow in the gradients"
        )
    squares = np.diagonal(gram)
    if squares.min() < 0:
        i = int(squares.argmin())
        raise CombinerError(f"the Gram's diagonal holds squared norms, but G[{i}, {i}] = {squares[i]:g}; give J @ J.T")
    if (gram == gram.T).all():
        return gram
    norms = np.sqrt(squares)
    excess = np.abs(gram - gram.T) - _ASYMMETRY * np.outer(norms, norms)
    if excess.max() > 0:
        i, j = np.unravel_index(excess.argmax(), excess.shape)
        different = f"G[{i}, {j}] = {gram[i, j]:g} and G[{j}, {i}] = {gram[j, i]:g}"
        raise CombinerError(f"the Gram must be symmetric, but {different}; give J @ J.T")
    symmetric: np.ndarray = (gram + gram.T) / 2
    return symmetric


def check_grams(grams: Float[np.ndarray, "T K K"]) -> Float[np.ndarray, "T K K"]:
    """A stack of Grams, each as `check_gram` returns it.

    Raises:
        CombinerError: a Gram is wrong. The message names the number of the first one.
    """
    grams = np.asarray(grams, dtype=np.float64)
    if grams.ndim != 3 or grams.shape[1] != grams.shape[2] or not grams.shape[1]:
        raise CombinerError(f"a stack of Grams must have shape (T, K, K) with K >= 1, but its shape is {grams.shape}")
    negative = (np.diagonal(grams, axis1=1, axis2=2) < 0).any()
    if np.isfinite(grams).all() and (grams == grams.swapaxes(1, 2)).all() and not negative:
        return grams
    checked = np.empty_like(grams)
    for t, gram in enumerate(grams):
        try:
            checked[t] = check_gram(gram)
        except CombinerError as error:
            raise CombinerError(f"Gram {t} of {len(grams)}: {error}") from None
    return checked


def check_losses(losses: Float[np.ndarray, "K"] | None, n_tasks: int, method: str) -> Float[np.ndarray, "K"]:
    """The losses as float64, one per task.

    Args:
        losses: the losses that the caller gave.
        n_tasks: K.
        method: the combiner's name, for messages.

    Raises:
        CombinerError: the losses are missing, of the wrong shape, or not finite.
    """
    if losses is None:
        raise CombinerError(f"{method} weighs tasks by their losses: pass losses, shape ({n_tasks},)")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.shape != (n_tasks,):
        raise CombinerError(f"{method} needs one loss per task, shape ({n_tasks},), but the shape is {losses.shape}")
    if not np.isfinite(losses).all():
        i = np.flatnonzero(~np.isfinite(losses))[0]
        raise CombinerError(f"{method}: the loss of task {i} is not finite; look for NaN or overflow in the losses")
    return losses


def check_positive_losses(losses: Float[np.ndarray, "K"], method: str) -> None:
    """Reject losses that a method cannot take a logarithm or a ratio of.

    Args:
        losses: one per task.
        method: the combiner's name, for the message.

    Raises:
        CombinerError: a loss is not positive. The message names the task with the smallest loss.
    """
    if losses.min() <= 0:
        i = int(losses.argmin())
        raise CombinerError(
            f"{method} needs positive losses, but the loss of task {i} is {losses[i]:g}: use {method} where every loss "
            "is positive, such as for a critic"
        )


def check_order(order: Int[np.ndarray, "..."] | None, n_tasks: int, method: str) -> Int[np.ndarray, "..."]:
    """A drawn order as an integer array.

    Args:
        order: the order that the caller gave.
        n_tasks: K.
        method: the combiner's name, for messages.

    Raises:
        CombinerError: the order is missing, or it does not hold integers.
    """
    if order is None:
        raise CombinerError(f"{method} visits tasks in a random order: pass order=combiner.draw_order(rng, {n_tasks})")
    order = np.asarray(order)
    if not np.issubdtype(order.dtype, np.integer):
        raise CombinerError(f"{method}: the order holds task numbers, but its dtype is {order.dtype}; give integers")
    return order


def alive_tasks(norms: Float[np.ndarray, "*T K"]) -> Bool[np.ndarray, "*T K"]:
    """Which tasks have a gradient: those whose G_ii = ||g_i||^2 is a normal number of float64.

    A smaller G_ii has lost digits, and the direction of g_i is lost with them. Such a task is dead.

    Args:
        norms: ||g_i||.
    """
    alive: np.ndarray = norms >= LEAST_NORM
    return alive


def all_alive(gram: Float[np.ndarray, "K K"]) -> bool:
    """Whether `alive_tasks` holds for every task of a Gram, in one pass over its diagonal."""
    return bool(np.diagonal(gram).min() >= _LEAST_SQUARE)

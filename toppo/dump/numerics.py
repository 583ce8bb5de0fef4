"""The arithmetic of gradients and success rates that recorders and readers share.

A slab is the matrix J (K, P). Its row i is g_i, the flat gradient of task i's loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.schema import ParameterSlice

_COLUMNS = 8192  # a (K, 8192) fp64 block of 10 to 50 tasks stays in cache


def gram(slab: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """G = J J', the inner products of the per-task gradients.

    Args:
        slab: J (K, P), fp32.

    Returns:
        G (K, K), multiplied and accumulated in fp64. An entry is NaN or inf where one of its rows is not finite.
    """
    G = np.zeros((len(slab), len(slab)))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, slab.shape[1], _COLUMNS):
            block = slab[:, start : start + _COLUMNS].astype(np.float64)
            G += block @ block.T
    return G


def layer_grams(slab: npt.NDArray[Any], layers: Sequence[ParameterSlice]) -> npt.NDArray[np.float64]:
    """The Gram of the columns of each layer, where a layer is one named tensor.

    Args:
        slab: J (K, P), fp32.
        layers: L tensors that together are all columns.

    Returns:
        (L, K, K). Their sum is the Gram of the slab, up to rounding.
    """
    return np.stack([gram(slab[:, layer.slice]) for layer in layers])


def finite_rows(slab: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """(K,) flags: 1 for each row of a (K, P) slab that holds finite numbers only, else 0."""
    return np.array([np.isfinite(row).all() for row in slab], dtype=np.int8)


def round_mantissa(values: npt.NDArray[np.float32], keepbits: int) -> npt.NDArray[np.float32]:
    """Values rounded to nearest (ties to even) with fewer mantissa bits, so that they compress better.

    The relative error is at most 2^-(keepbits + 1).

    Args:
        values: fp32, any shape.
        keepbits: how many of fp32's 23 mantissa bits to keep, 1 to 23.

    Returns:
        The same shape. A value that is not finite, or would round to infinity, is kept unchanged.
    """
    drop = 23 - keepbits
    if drop == 0:
        return values
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(drop)) & np.uint32(1)
    rounded = (bits + (np.uint32((1 << (drop - 1)) - 1) + odd)) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    result = rounded.view(np.float32)
    keep = ~(np.isfinite(values) & np.isfinite(result))
    result[keep] = values[keep]
    return result


def worst_k(success: npt.NDArray[Any], k: int) -> npt.NDArray[np.float64]:
    """Mean success of the k least successful tasks (Table 2's worst-k, before its average over seeds).

    The trainer logs it and the toolkit tabulates it, so it lives where both can import it.

    Args:
        success: (..., K). Each leading index has its own k worst tasks.
        k: how many tasks; all K where there are fewer than k.

    Returns:
        (...), in the unit of `success`.
    """
    return np.asarray(np.sort(success, axis=-1)[..., :k].mean(axis=-1))

"""The arithmetic of a slab: its Gram, its finite rows, its rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_COLUMNS = 8192  # a (K, 8192) fp64 block of 10 to 50 tasks stays in cache


def gram(slab: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """G = J J', the inner products of per-task gradients.

    Args:
        slab: J (K, P), fp32.

    Returns:
        (K, K) fp64, multiplied and accumulated in fp64; NaN or inf where a row is not finite.
    """
    G = np.zeros((len(slab), len(slab)))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, slab.shape[1], _COLUMNS):
            block = slab[:, start : start + _COLUMNS].astype(np.float64)
            G += block @ block.T
    return G


def finite_rows(slab: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """1 for each row of a (K, P) slab that holds finite numbers only, else 0."""
    return np.array([np.isfinite(row).all() for row in slab], dtype=np.int8)


def round_mantissa(values: npt.NDArray[np.float32], keepbits: int) -> npt.NDArray[np.float32]:
    """Values rounded to nearest (ties to even) with `keepbits` of fp32's 23 mantissa bits, so that they compress.

    The relative error is at most 2^-(keepbits + 1). What is not finite, or would round to infinity, is kept as it is.
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

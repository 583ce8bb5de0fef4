"""What a caller records, as numpy: arrays and tensors of any library, lists of them, and plain numbers."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 2**63 - 1
"""The largest whole number that a dump can hold."""


def as_array(value: Any) -> npt.NDArray[Any]:
    """A value as a numpy array, which may share its memory.

    A torch tensor is taken out of its graph and copied from its device. What numpy has no type or form for is made
    plain: bfloat16 becomes fp32, and a sparse matrix becomes dense. A list may hold arrays and tensors.

    Args:
        value: numpy, torch on any device, JAX, a list of these, or plain numbers.
    """
    if isinstance(value, list | tuple):
        return _stacked([as_array(item) for item in value])
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach()
        if str(value.layout) != "torch.strided":
            value = value.to_dense()
        value = value.cpu()
        if "bfloat16" in str(value.dtype):
            value = value.float()
    elif hasattr(value, "toarray"):  # a matrix of scipy.sparse
        value = value.toarray()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def is_numeric(array: npt.NDArray[Any]) -> bool:
    """Whether an array holds real numbers or truth values."""
    return array.dtype.kind in "fiub"


def whole_number(value: Any) -> int | None:
    """A whole number from 0 on, of any type that Python takes for an index; None if the value is something else."""
    try:
        number = operator.index(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= MOST else None


def _stacked(items: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({item.shape for item in items}) > 1:
        return np.empty(len(items), object)  # of no shape that a dump holds, so that the caller names it
    return np.stack(items) if items else np.empty(0)

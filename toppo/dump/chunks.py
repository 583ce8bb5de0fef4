"""The bytes of one chunk, as Zarr v3's codecs define them.

Written here and not through zarr: on one thread, with the interpreter lock released where the work is, so that a
training thread beside it is not held up. Tests hold it to zarr's own output, byte for byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import numerics


def encode(values: npt.NDArray[Any], dtype: str) -> bytes:
    """A plain chunk: little-endian values in C order, then their CRC-32C."""
    return _checked(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes())


def encode_slab(slab: npt.NDArray[np.float32], keepbits: int | None) -> bytes:
    """A (K, P) slab as a shard of K chunks, one per row: blosc (zstd 1, shuffle) and CRC-32C each, then the index.

    Args:
        slab: per-task gradients.
        keepbits: mantissa bits to keep, None for all.
    """
    from numcodecs.blosc import SHUFFLE, Blosc  # type: ignore[import-untyped]

    codec = Blosc(cname="zstd", clevel=1, shuffle=SHUFFLE)
    rows = []
    for row in slab:
        kept = row if keepbits is None else numerics.round_mantissa(row, keepbits)
        rows.append(_checked(codec.encode(np.ascontiguousarray(kept, "<f4"))))
    lengths = np.array([len(row) for row in rows])
    index = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    return b"".join(rows) + encode(index, "u8")


def _checked(data: bytes) -> bytes:
    import google_crc32c

    return data + int(google_crc32c.value(data)).to_bytes(4, "little")

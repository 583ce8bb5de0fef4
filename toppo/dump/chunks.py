"""The bytes of one chunk, as the codecs of Zarr v3 define them.

Zarr itself is not used here. This code runs on one thread and releases the interpreter lock while it works. So it does
not hold up the training thread. Tests compare its bytes with those that Zarr writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump import numerics


def encode(values: npt.NDArray[Any], dtype: str) -> bytes:
    """The bytes of a plain chunk: little-endian values in C order, then their CRC-32C."""
    return _checked(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes())


def encode_slab(slab: npt.NDArray[np.float32], keepbits: int | None) -> bytes:
    """A slab as a Zarr shard: one chunk per row (blosc with zstd 1 and shuffle, CRC-32C), then the index of the chunks.

    Args:
        slab: J (K, P), fp32.
        keepbits: mantissa bits to keep, 1 to 23; None keeps all.
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

"""The bytes of one chunk, as the codecs of Zarr v3 define them.

Zarr itself is not used here. This code runs on one thread and releases the interpreter lock while it works, so it does
not hold up a training thread beside it. It knows the few codecs of the format and no others, so that nothing in a file
can choose what code runs. Tests compare its bytes with those that Zarr writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from toppo.dump import numerics

_U4 = struct.Struct("<I")

_SAMPLED = 2**17  # bytes of a row from which on a sample is compressed first
_PIECES = 16  # the sample is the first 16th of each 16th of the row
_NEAR = 1.1  # bytes that lz4 may take for each byte of zstd


def encode(values: npt.NDArray[Any], dtype: str) -> bytes:
    """The bytes of a plain chunk: little-endian values in C order, then their CRC-32C."""
    return _checked(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes())


class Rows(NamedTuple):
    """The bytes of a slab's file, in parts.

    Attributes:
        parts: one after the other they are the file.
        sums: the CRC-32C of each row.
    """

    parts: list[bytes]
    sums: bytes


def encode_slab(slab: npt.NDArray[np.float32], keepbits: int | None) -> Rows:
    """A slab as a Zarr shard: one chunk per row (blosc with zstd 1 and shuffle, CRC-32C), then the index of the chunks.

    Args:
        slab: J (K, P), fp32.
        keepbits: mantissa bits to keep, 1 to 23; None keeps all.
    """
    rows = [
        _compressed(np.ascontiguousarray(row if keepbits is None else numerics.round_mantissa(row, keepbits), "<f4"))
        for row in slab
    ]
    sums = [_crc(row) for row in rows]
    lengths = np.array([len(row) + _U4.size for row in rows])
    index = encode(np.stack([np.cumsum(lengths) - lengths, lengths], axis=1), "u8")
    # parts and not one file, because to join and copy them takes as long as to make them
    return Rows([part for pair in zip(rows, sums, strict=True) for part in pair] + [index], b"".join(sums))


def encode_text(values: Sequence[str]) -> bytes:
    """A chunk of text: how many, then the length and the UTF-8 bytes of each, then their CRC-32C."""
    texts = [value.encode() for value in values]
    parts = [_U4.pack(len(texts)), *(_U4.pack(len(text)) + text for text in texts)]
    return _checked(b"".join(parts))


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """What `encode` was given, or what Zarr wrote in its place. It cannot be written to.

    Raises:
        ValueError: the bytes do not match their checksum or do not fill the shape.
    """
    return np.frombuffer(_content(data), np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def decode_text(data: bytes, length: int) -> npt.NDArray[Any]:
    """What `encode_text` was given, as an array of `length` strings.

    Raises:
        ValueError: the bytes do not match their checksum, or are not that many strings.
    """
    content = _content(data)
    texts, at = [], _U4.size
    while at + _U4.size <= len(content):
        end = at + _U4.size + int(_U4.unpack_from(content, at)[0])
        texts.append(bytes(content[at + _U4.size : end]).decode())
        at = end
    if at != len(content) or len(texts) != length or _U4.unpack_from(content)[0] != length:
        raise ValueError(f"holds {len(texts)} names, expected {length}")
    return np.array(texts)


def checksum(data: bytes) -> bytes:
    """The CRC-32C that stands at the end of a chunk, or of a row of a slab."""
    return data[-_U4.size :]


def index_size(tasks: int) -> int:
    """Bytes of the index at the end of a slab's file."""
    return 16 * tasks + 4


def decode_index(data: bytes, tasks: int) -> list[tuple[int, int]]:
    """Where each row of a slab lies in its file: (first byte, number of bytes).

    Args:
        data: the last `index_size` bytes of the file.
        tasks: K, the number of rows.

    Raises:
        ValueError: the bytes are not such an index.
    """
    return [(int(first), int(length)) for first, length in decode(data, "u8", (tasks, 2))]


def decode_rows(parts: Iterable[bytes], count: int, width: int) -> npt.NDArray[np.float32]:
    """Rows of a slab, (count, P).

    Args:
        parts: the bytes of each row.
        count: number of rows.
        width: P.

    Raises:
        ValueError: the bytes do not match their checksum, or are not rows of that width.
    """
    from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

    rows: npt.NDArray[np.float32] | None = None
    for at, part in enumerate(parts):
        content = _content(part)
        # blosc's own header says how much it will write: bytes 4 to 7
        if len(content) < 16 or _U4.unpack_from(content, 4)[0] != 4 * width:
            raise ValueError("is no compressed row of this width")
        if rows is None:  # not before: a width that a header only claims takes no memory
            rows = np.empty((count, width), "<f4")
        try:
            Blosc().decode(content, out=rows[at])
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    return np.empty((0, width), np.float32) if rows is None else rows.astype(np.float32, copy=False)


def _checked(data: bytes) -> bytes:
    return data + _crc(data)


def _crc(data: bytes) -> bytes:
    import google_crc32c

    return _U4.pack(int(google_crc32c.value(data)))


def _compressed(row: npt.NDArray[np.float32]) -> bytes:
    """A row through blosc: zstd, or lz4 where a sample says that the row then takes little more space.

    Compressing is nine tenths of the work of a record, and lz4 does it in a tenth of the time. Gradients without zeros
    hardly shrink with either. Those of ReLU layers have runs of zeros, which both find.
    """
    from numcodecs.blosc import NOSHUFFLE, SHUFFLE, Blosc

    codec = Blosc(cname="zstd", clevel=1, shuffle=SHUFFLE)
    if row.nbytes >= _SAMPLED:
        fast = Blosc(cname="lz4", clevel=1, shuffle=NOSHUFFLE)
        pieces = row[: len(row) // _PIECES * _PIECES].reshape(_PIECES, -1)
        sample = np.ascontiguousarray(pieces[:, : pieces.shape[1] // _PIECES])
        if len(fast.encode(sample)) < _NEAR * len(codec.encode(sample)):
            codec = fast
    return bytes(codec.encode(row))


def _content(data: bytes) -> memoryview:
    """The bytes before a CRC-32C that they match."""
    import google_crc32c

    content = memoryview(data)[:-4]
    if len(data) < 4 or int(google_crc32c.value(bytes(content))) != _U4.unpack_from(data, len(data) - 4)[0]:
        raise ValueError("does not match its checksum")
    return content

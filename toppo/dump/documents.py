"""The JSON documents of a dump, checked before anything is done with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toppo.dump.errors import DumpError
from toppo.dump.schema import ArraySpec

Document = dict[str, Any]
"""The content of a zarr.json."""

DEEPEST = 64
"""How many objects and lists may lie in each other. The deepest documents that toppo writes have about ten."""

_DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "i8": "int64",
    "i4": "int32",
    "i1": "int8",
    "u1": "uint8",
    "str": "string",
}  # fmt: skip
_Codec = tuple[str, dict[str, Any]]
_BYTES: _Codec = ("bytes", {"endian": "little"})
_ONE_BYTE: _Codec = ("bytes", {})
_CRC: _Codec = ("crc32c", {})
_BLOSC: _Codec = ("blosc", {"cname": "zstd", "clevel": 1, "shuffle": "shuffle"})
_TEXT: _Codec = ("vlen-utf8", {})


def parse(data: bytes, where: str, key: str) -> Document:
    """The object that a JSON document holds.

    Args:
        data: the document.
        where: path or URL of its dump, for messages.
        key: name of the document, for messages.

    Raises:
        DumpError: not JSON, not an object, or nested deeper than `DEEPEST`.
    """
    try:
        document = json.loads(data, parse_constant=_no_number)
        if b"\\u" in data:
            json.dumps(document, ensure_ascii=False).encode()  # half a character cannot be printed
    except RecursionError:
        raise DumpError(f"{where}: {key} is nested too deep; restore it from a copy", path=where) from None
    except ValueError as error:
        raise DumpError(f"{where}: {key} is not JSON ({error}); restore it from a copy", path=where) from error
    if not isinstance(document, dict):
        raise DumpError(f"{where}: {key} is not a JSON object; restore it from a copy", path=where)
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return document
    raise DumpError(f"{where}: {key} is nested too deep; restore it from a copy", path=where)


def check_root(document: Mapping[str, Any], where: str) -> None:
    """Raise DumpError unless a root document is one of Zarr format 3."""
    if document.get("zarr_format") != 3 or document.get("node_type") != "group":
        raise DumpError(
            f"{where}: not a toppo dump (zarr.json is no group of Zarr format 3); give a run's dump.zarr", path=where
        )


def misfit(document: Mapping[str, Any], spec: ArraySpec) -> str | None:
    """What in an array's document differs from what the format says of it; None if nothing does.

    Readers decode chunks by the format, so a document that says otherwise would mislead other tools alone. It is
    refused all the same: no tool may be sent to another codec.

    Args:
        document: the zarr.json of the array.
        spec: the array; the length of its first axis does not count.
    """
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": _DTYPES[spec.dtype],
        "dimension_names": list(spec.dims),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(spec.chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "storage_transformers": [],
    }
    if spec.steps == 0:
        del expected["chunk_grid"]  # as long as the array, as allocated
    for key, value in expected.items():
        if document.get(key, [] if key == "storage_transformers" else None) != value:
            return f"its {key} is {_short(document.get(key))}, expected {_short(value)}"
    shape = document.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        return f"its shape is {_short(shape)}"
    if len(shape) != len(spec.shape) or (spec.grows and shape[1:] != list(spec.shape[1:])):
        return f"its shape is {_short(shape)}, expected {list(spec.shape)}"
    if not _are(document.get("codecs"), _codecs(spec)):
        return f"its codecs are {_short(document.get('codecs'))}, which no writer of dumps uses"
    return None


def _codecs(spec: ArraySpec) -> list[_Codec]:
    if spec.dtype == "str":
        return [_TEXT, _CRC]
    if not spec.by_row:
        return [_ONE_BYTE if spec.dtype in ("i1", "u1") else _BYTES, _CRC]
    row = [*spec.chunks[: spec.steps], 1, *spec.chunks[spec.steps + 1 :]]
    inner = {"chunk_shape": row, "codecs": [_BYTES, _BLOSC, _CRC], "index_codecs": [_BYTES, _CRC]}
    return [("sharding_indexed", inner | {"index_location": "end"})]


def _are(codecs: object, expected: list[_Codec]) -> bool:
    """Whether a list of codecs has these names, with these settings among its own."""
    if not isinstance(codecs, list) or len(codecs) != len(expected):
        return False
    for codec, (name, settings) in zip(codecs, expected, strict=True):
        if not isinstance(codec, dict) or codec.get("name") != name:
            return False
        given = codec.get("configuration", {})
        if not isinstance(given, dict):
            return False
        for key, value in settings.items():
            same = _are(given.get(key), value) if key.endswith("codecs") else given.get(key) == value
            if not same:
                return False
    return True


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")

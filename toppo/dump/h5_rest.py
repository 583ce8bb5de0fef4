"""What an archive repeats for people with other tools: attributes, labels, scales and parameters of the sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toppo.dump.h5_objects import dataset, open_h5
from toppo.dump.header import Header

if TYPE_CHECKING:
    import h5py

PARAMETERS = "parameters"
"""Name of the group that holds the parameters of each side."""


def plain_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a run that an HDF5 file can have as attributes of its own."""
    return {key: value for key, value in attrs.items() if isinstance(value, str | int | float)}


def parameters(header: Header) -> dict[str, list[Any]]:
    """Path of a dataset -> its values, for the parameters of every side."""
    found: dict[str, list[Any]] = {}
    for side, parts in header.layout.sides.items():
        found[f"{PARAMETERS}/{side}/name"] = [part.name for part in parts]
        found[f"{PARAMETERS}/{side}/shape"] = [",".join(map(str, part.shape)) for part in parts]
        found[f"{PARAMETERS}/{side}/offset"] = [part.offset for part in parts]
    return found


def scales(header: Header) -> dict[str, int]:
    """Name of a dimension without an array of its own -> its length. Its scale counts from 0."""
    specs = header.layout.arrays(*header.committed)
    sizes = header.layout.sizes(*header.committed)
    dims = sorted({dim for spec in specs.values() for dim in spec.dims})
    return {dim: sizes[dim] for dim in dims if dim not in specs}


def differences(path: Path, header: Header, beside: set[str]) -> list[tuple[str, str]]:
    """(object, what is wrong) wherever one of these differs from the header.

    Args:
        path: the archive.
        header: of the archive.
        beside: further names that may be in it.
    """
    try:
        with open_h5(path) as file:
            return list(_differences(file, header, beside))
    except Exception as error:  # damage comes as any kind
        return [("the file", f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})")]


def _differences(file: h5py.File, header: Header, beside: set[str]) -> Iterator[tuple[str, str]]:
    specs = header.layout.arrays(*header.committed)
    lengths = scales(header)
    expected = {*specs, *lengths, PARAMETERS, *beside}
    for name in sorted(set(file) - expected):
        yield name, "is in no archive"
    for name, values in parameters(header).items():
        kept = dataset(file, name)
        found = kept.asstr()[()].tolist() if isinstance(values[0], str) else kept[()].tolist()
        if found != values:
            yield name, "is not as in the header"
    for name, length in lengths.items():
        if not np.array_equal(dataset(file, name)[()], np.arange(length)):
            yield name, "does not count from 0"
    for name, spec in specs.items():
        array = dataset(file, name)
        said = [array.attrs.get("units"), array.attrs.get("description")]
        if said != [spec.units, spec.description]:
            yield name, "its units or description are not those of the header"
        # never through HDF5's own functions for dimensions, which crash on damage
        labels = list(np.atleast_1d(array.attrs.get("DIMENSION_LABELS", [])))
        if labels and labels != [dim if dim != name else "" for dim in spec.dims]:
            yield name, "has lost the labels of its axes"
    attributes = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    if attributes != plain_attributes(header.attrs):
        yield "attributes of the file", "are not as in the header"

"""The labelled arrays of a dump, as xarray. This module is imported on use only, because xarray loads slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from toppo.dump.source import Source


class _LazyArray(BackendArray):
    """One array of a source, read through xarray's lazy indexing.

    Args:
        source: the dump or archive to read from.
        name: the array's name.
    """

    def __init__(self, source: Source, name: str) -> None:
        spec = source.specs[name]
        self._source = source
        self._name = name
        self.shape = spec.shape
        self.dtype = np.dtype(spec.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        outer = indexing.IndexingSupport.OUTER
        return np.asarray(indexing.explicit_indexing_adapter(key, self.shape, outer, self._read))

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        return self._source.read(self._name, key)


def dataset(source: Source) -> xr.Dataset:
    """Every array of a source with its coordinates. Indices and task names are in memory. The rest is read on use."""
    variables = {}
    for name, spec in source.specs.items():
        attrs = {"units": spec.units, "long_name": spec.description}
        if spec.steps == 0:
            # from the header, which has a checksum; names from a lost chunk would read as empty
            data: Any = np.array(source.header.layout.coordinate(spec))
        else:
            data = indexing.LazilyIndexedArray(_LazyArray(source, name))
        variables[name] = xr.Variable(spec.dims, data, attrs)
    result = xr.Dataset(variables, attrs=dict(source.header.attrs))
    indices = [name for name, spec in source.specs.items() if spec.steps == 0]
    return result.set_coords([*indices, *(name for name in source.header.layout.step_arrays if name in variables)])


def slab(
    source: Source, side: str, snapshot: int, minibatch: int, values: npt.NDArray[Any], parameter: str | None
) -> xr.DataArray:
    """A slab with its labels: (task, {side}_param), fp32.

    Args:
        source: the dump or archive that the slab was read from.
        side: name of its group of parameters.
        snapshot: index of its snapshot, kept as a coordinate.
        minibatch: index of its minibatch, kept as a coordinate.
        values: J (K, P), or the columns of one tensor.
        parameter: name of this tensor, kept as a coordinate; None for all of P.
    """
    coords = {"task": list(source.header.layout.tasks), **_place(source, snapshot, minibatch, parameter)}
    attrs = {"units": source.specs[f"{side}_grad"].units}
    return xr.DataArray(values, dims=("task", f"{side}_param"), coords=coords, attrs=attrs, name=f"{side}_grad")


def layer_gram(
    source: Source, side: str, snapshot: int, minibatch: int, values: npt.NDArray[Any], parameter: str
) -> xr.DataArray:
    """The Gram of one layer with its labels: (task, task_j), fp64.

    Args:
        source: the dump or archive that it was read from.
        side: name of its group of parameters.
        snapshot: index of its snapshot, kept as a coordinate.
        minibatch: index of its minibatch, kept as a coordinate.
        values: G = J J' (K, K).
        parameter: name of the layer, kept as a coordinate.
    """
    tasks = list(source.header.layout.tasks)
    coords = {"task": tasks, "task_j": tasks, **_place(source, snapshot, minibatch, parameter)}
    attrs = {"units": source.specs[f"{side}_gram"].units}
    return xr.DataArray(values, dims=("task", "task_j"), coords=coords, attrs=attrs, name=f"{side}_gram")


def layer_grams(source: Source, side: str, values: npt.NDArray[Any]) -> xr.DataArray:
    """The Grams of all layers with their labels: (snapshot, minibatch, {side}_layer, task, task_j), fp64.

    Args:
        source: the dump or archive that they were read from.
        side: name of their group of parameters.
        values: (S, M, L, K, K).
    """
    whole = dataset(source)[f"{side}_gram"]
    layer = f"{side}_layer"
    coords = {name: coord.load() for name, coord in whole.coords.items()}
    return xr.DataArray(
        values,
        dims=("snapshot", "minibatch", layer, "task", "task_j"),
        coords={**coords, layer: source.header.layout.layers(side)},
        attrs=whole.attrs,
        name=f"{side}_layer_gram",
    )


def _place(source: Source, snapshot: int, minibatch: int, parameter: str | None) -> dict[str, Any]:
    """What says where something was recorded, as coordinates."""
    step = source.header.layout.step.name
    place: dict[str, Any] = {"snapshot": snapshot, "minibatch": minibatch}
    place[step] = int(source.read(step, (slice(snapshot, snapshot + 1),))[0])
    if parameter is not None:
        place["parameter"] = parameter
    return place

"""The labelled arrays of a dump, as xarray. This module is imported on use only, because xarray loads slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from toppo.dump.source import Source

_COORDINATES = ("snapshot", "minibatch", "task", "task_j", "env_steps", "collect", "stream_env_steps")


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
    return result.set_coords([name for name in _COORDINATES if name in variables])


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
    env_steps = int(source.read("env_steps", (slice(snapshot, snapshot + 1),))[0])
    coords: dict[str, Any] = {
        "task": list(source.header.layout.tasks),
        "snapshot": snapshot,
        "minibatch": minibatch,
        "env_steps": env_steps,
    }
    if parameter is not None:
        coords["parameter"] = parameter
    attrs = {"units": source.specs[f"{side}_grad"].units}
    return xr.DataArray(values, dims=("task", f"{side}_param"), coords=coords, attrs=attrs, name=f"{side}_grad")


def square(slab: xr.DataArray, gram: npt.NDArray[np.float64]) -> xr.DataArray:
    """The Gram of a labelled slab, with its labels: (task, task_j), fp64.

    Args:
        slab: a result of `slab`.
        gram: G = J J' (K, K).
    """
    kept = {name: coord.values for name, coord in slab.coords.items() if coord.ndim == 0}
    tasks = slab.coords["task"].values
    name = str(slab.name).removesuffix("_grad") + "_gram"
    units = f"({slab.attrs['units']})^2"
    return xr.DataArray(
        gram,
        dims=("task", "task_j"),
        coords={"task": tasks, "task_j": tasks, **kept},
        attrs={"units": units},
        name=name,
    )

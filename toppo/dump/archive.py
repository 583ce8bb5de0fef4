"""Writing an archive: a dump as one HDF5 file that plain h5py reads.

An archive has the same array names and shapes as the dump, with units and dimension scales.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from toppo.common.files import write_whole
from toppo.dump import numerics
from toppo.dump.digests import axes, digest, units
from toppo.dump.errors import DumpError
from toppo.dump.files import local_path
from toppo.dump.h5_rest import PARAMETERS, parameters, plain_attributes, scales
from toppo.dump.h5_source import HEADER, RUN, log_digests
from toppo.dump.h5_target import new_h5
from toppo.dump.header import SCHEMA_VERSION, Header, checksum
from toppo.dump.logs import run_logs
from toppo.dump.opening import open_dump
from toppo.dump.reader import Dump
from toppo.dump.schema import ArraySpec

if TYPE_CHECKING:
    import h5py

_WHOLE = slice(None)


def export(
    path: str | os.PathLike[str],
    h5path: str | os.PathLike[str],
    *,
    slabs: bool = False,
    keepbits: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the committed part of a dump to one HDF5 file, whole or not at all.

    The configuration and logs of the run (see `run_logs`) go along, so the archive is a record of the whole run.

    Args:
        path: whatever `open_dump` takes.
        h5path: the file to make. An earlier file of that name is replaced.
        slabs: whether the gradients J themselves (slabs) go along. Everything else is always included. If they do not
            go along, the Gram of every layer does: it is computed where the dump does not have it.
        keepbits: mantissa bits of the gradients to keep, 1 to 23; None keeps the bits that the dump has.
        progress: called with (slabs done, slabs in all).

    Returns:
        The file.

    Raises:
        DumpNotFoundError: no dump is there.
        DumpError: there is no snapshot to export, there are no slabs to export, or the dump is damaged.
        OSError: the file cannot be written.
    """
    dump = open_dump(path)
    if keepbits is not None and not slabs:
        raise DumpError(
            f"`keepbits={keepbits}`: needs `slabs` (Grams are kept in full); add `slabs` or drop `keepbits`"
        )
    if keepbits is not None and not 1 <= keepbits <= 23:
        raise DumpError(f"`keepbits={keepbits}`: must lie in 1..23 (fp32 has 23 mantissa bits)")
    if slabs:
        dump.require_slabs()
    if dump.n_snapshots == 0:
        raise DumpError(
            f"{dump.path}: holds no snapshot yet, so nothing to export; wait for the run's first one", path=dump.path
        )
    logs = run_logs(path)
    header = dump.source.header
    bits = header.layout.keepbits if keepbits is None else min(keepbits, header.layout.keepbits or 23)
    by_layer = header.layout.layer_grams or (header.layout.slabs and not slabs)
    layout = replace(header.layout, slabs=slabs, keepbits=bits, layer_grams=by_layer)
    header = replace(header, layout=layout, version=SCHEMA_VERSION, chain={})

    def content(file: BinaryIO) -> None:
        with new_h5(Path(file.name)) as archive:  # HDF5 opens files by name
            digests = _write(archive, dump, header, keepbits, progress)
            record = header.to_json({}) | {"digests": digests, "logs": _write_logs(archive, logs)}
            archive[HEADER] = json.dumps(record | {"checksum": checksum(record)}, indent=2)
            archive[HEADER].attrs["description"] = "layout, run attributes, counts and digests, as JSON"

    return write_whole(local_path(h5path), content)


def _write(
    file: h5py.File,
    dump: Dump,
    header: Header,
    keepbits: int | None,
    progress: Callable[[int, int], object] | None,
) -> dict[str, str]:
    """Write the arrays and what explains them; returns the digests of each array, see `digests.Digests`."""
    for key, value in plain_attributes(header.attrs).items():
        file.attrs[key] = value
    _create_group(file, PARAMETERS)
    for side in header.layout.sides:
        _create_group(file, f"{PARAMETERS}/{side}")
    for path, listed in parameters(header).items():
        file[path] = listed
    specs = header.layout.arrays(*header.committed)
    content = _Content(dump, specs, keepbits, progress)
    digests = {name: "".join(content.copy(name, _create(file, name, spec))) for name, spec in specs.items()}
    for dim, length in scales(header).items():
        file[dim] = np.arange(length, dtype=np.int32)
    for dim in sorted({dim for spec in specs.values() for dim in spec.dims}):
        file[dim].make_scale(dim)
    for name, spec in specs.items():
        for axis, dim in enumerate(spec.dims):
            if name != dim:
                file[name].dims[axis].attach_scale(file[dim])
                file[name].dims[axis].label = dim
    return digests


class _Content:
    """The values of a dump on their way to an archive.

    Args:
        dump: what is exported.
        specs: the arrays of the archive.
        keepbits: mantissa bits of the slabs to keep; None keeps those that the dump has.
        progress: called with (slabs done, slabs in all).
    """

    def __init__(
        self,
        dump: Dump,
        specs: Mapping[str, ArraySpec],
        keepbits: int | None,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._dump, self._specs, self._keepbits, self._progress = dump, specs, keepbits, progress
        by_layer = {f"{side}_layer_gram": side for side in dump.sides}
        self._computed = {name: side for name, side in by_layer.items() if name in specs and name not in dump}
        self._done = 0
        by_slab = [spec for name, spec in specs.items() if spec.by_row or name in self._computed]
        self._total = sum(int(np.prod(spec.shape[:2])) for spec in by_slab)

    def copy(self, name: str, dataset: h5py.Dataset) -> list[str]:
        """Copy an array to its dataset. Returns the digest of each of its units."""
        spec = self._specs[name]
        if spec.by_row:
            return self._copy_slabs(name, spec, dataset)
        if name in self._computed:
            return self._copy_layer_grams(self._computed[name], spec, dataset)
        if name in self._dump:
            values = self._dump.values(name)
        else:  # the names of the layers of Grams that are computed
            values = np.array(self._dump.layer_names(name.removesuffix("_layer")))
        if dataset.size:
            dataset[...] = values.astype(object) if spec.dtype == "str" else values
        return [digest(unit) for unit in units(values, axes(spec))]

    def _copy_slabs(self, name: str, spec: ArraySpec, dataset: h5py.Dataset) -> list[str]:
        found = []
        for place in np.ndindex(*spec.shape[:2]):
            slab = self._dump.source.read(name, (*place, _WHOLE, _WHOLE))
            dataset[place] = slab if self._keepbits is None else numerics.round_mantissa(slab, self._keepbits)
            found += [digest(row) for row in dataset[place]]
            self._count()
        return found

    def _copy_layer_grams(self, side: str, spec: ArraySpec, dataset: h5py.Dataset) -> list[str]:
        found = []
        for snapshot in range(spec.shape[0]):
            of_snapshot = np.empty(spec.shape[1:])
            for minibatch in range(spec.shape[1]):
                of_snapshot[minibatch] = self._dump.layer_gram_values(side, snapshot, minibatch)
                self._count()
            dataset[snapshot] = of_snapshot
            found.append(digest(of_snapshot))
        return found

    def _count(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _create_group(file: h5py.File, path: str) -> None:
    import h5py

    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    h5py.h5g.create(file.id, path.encode(), gcpl=creation)


def _write_logs(file: h5py.File, logs: Mapping[str, str]) -> dict[str, str]:
    """Write the logs of the run; returns their digests."""
    if logs:
        _create_group(file, RUN)
    # as bytes, because HDF5 strings have no checksum
    for name, text in logs.items():
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        how = {"compression": "gzip", "shuffle": False, "fletcher32": True} if data.size else {}
        dataset = file.create_dataset(f"{RUN}/{name}", data=data, **how)
        dataset.attrs["description"] = f"the run's {name}, UTF-8"
    return log_digests({name: text.encode() for name, text in logs.items()})


def _create(file: h5py.File, name: str, spec: ArraySpec) -> h5py.Dataset:
    import h5py

    how: dict[str, Any] = {}
    if spec.steps == 2:
        how = {"chunks": (1, 1, 1, spec.shape[3]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    elif 0 not in spec.shape:
        how = {"chunks": spec.chunks}
    dtype: Any = h5py.string_dtype() if spec.dtype == "str" else np.dtype(spec.dtype)
    checked = bool(how) and spec.dtype != "str"
    if spec.dtype != "str":  # what was lost shows as NaN or -1, never as a plausible number
        how["fillvalue"] = np.nan if spec.dtype[0] == "f" else -1
    dataset = file.create_dataset(name, shape=spec.shape, dtype=dtype, fletcher32=checked, **how)
    dataset.attrs["units"] = spec.units
    dataset.attrs["description"] = spec.description
    return dataset

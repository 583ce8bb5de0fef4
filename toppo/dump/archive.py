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
from toppo.dump.errors import DumpError
from toppo.dump.files import local_path
from toppo.dump.h5_source import HEADER, RUN
from toppo.dump.h5_target import new_h5
from toppo.dump.logs import run_logs
from toppo.dump.opening import open_dump
from toppo.dump.schema import ArraySpec, Header
from toppo.dump.source import Source

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
        slabs: whether the gradients J themselves (slabs) go along. Everything else is always included.
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
    header = replace(header, layout=replace(header.layout, slabs=slabs, keepbits=bits))

    def content(file: BinaryIO) -> None:
        with new_h5(Path(file.name)) as archive:  # HDF5 opens files by name
            _write(archive, dump.source, header, keepbits, progress)
            _write_logs(archive, logs)

    return write_whole(local_path(h5path), content)


def _write(
    file: h5py.File,
    source: Source,
    header: Header,
    keepbits: int | None,
    progress: Callable[[int, int], object] | None,
) -> None:
    record = header.to_json({})
    file[HEADER] = json.dumps(record, indent=2)
    file[HEADER].attrs["description"] = "layout, run attributes and counts, as JSON"
    for key, value in header.attrs.items():
        if isinstance(value, str | int | float):
            file.attrs[key] = value
    for side, parts in header.layout.sides.items():
        group = file.create_group(f"parameters/{side}")
        group["name"] = [part.name for part in parts]
        group["shape"] = [",".join(map(str, part.shape)) for part in parts]
        group["offset"] = [part.offset for part in parts]
    specs = header.layout.arrays(*header.committed)
    total = sum(int(np.prod(spec.shape[:2])) for spec in specs.values() if spec.steps == 2)
    done = 0
    for name, spec in specs.items():
        dataset = _create(file, name, spec)
        if spec.steps == 2:
            for step in np.ndindex(*spec.shape[:2]):
                slab = source.read(name, (*step, _WHOLE, _WHOLE))
                dataset[step] = slab if keepbits is None else numerics.round_mantissa(slab, keepbits)
                done += 1
                if progress is not None:
                    progress(done, total)
        elif dataset.size:
            values = source.read(name, (_WHOLE,) * len(spec.dims))
            dataset[...] = values.astype(object) if spec.dtype == "str" else values
    sizes = header.layout.sizes(*header.committed)
    for dim in sorted({dim for spec in specs.values() for dim in spec.dims}):
        if dim not in file:
            file[dim] = np.arange(sizes[dim], dtype=np.int32)
        file[dim].make_scale(dim)
    for name, spec in specs.items():
        for axis, dim in enumerate(spec.dims):
            if name != dim:
                file[name].dims[axis].attach_scale(file[dim])
                file[name].dims[axis].label = dim


def _write_logs(file: h5py.File, logs: Mapping[str, str]) -> None:
    # as bytes, because HDF5 strings have no checksum
    for name, text in logs.items():
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        how = {"compression": "gzip", "shuffle": False, "fletcher32": True} if data.size else {}
        dataset = file.create_dataset(f"{RUN}/{name}", data=data, **how)
        dataset.attrs["description"] = f"the run's {name}, UTF-8"


def _create(file: h5py.File, name: str, spec: ArraySpec) -> h5py.Dataset:
    import h5py

    how: dict[str, Any] = {}
    if spec.steps == 2:
        how = {"chunks": (1, 1, 1, spec.shape[3]), "compression": "gzip", "compression_opts": 1, "shuffle": True}
    elif 0 not in spec.shape:
        how = {"chunks": spec.chunks}
    dtype: Any = h5py.string_dtype() if spec.dtype == "str" else np.dtype(spec.dtype)
    checked = bool(how) and spec.dtype != "str"
    dataset = file.create_dataset(name, shape=spec.shape, dtype=dtype, fletcher32=checked, **how)
    dataset.attrs["units"] = spec.units
    dataset.attrs["description"] = spec.description
    return dataset

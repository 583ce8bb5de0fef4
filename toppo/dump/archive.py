"""A dump as one HDF5 file that plain h5py reads: same names and shapes, units, dimension scales."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toppo.dump import numerics
from toppo.dump.files import local_path
from toppo.dump.logs import LOGS, run_logs
from toppo.dump.reader import Source, open_dump
from toppo.dump.schema import ArraySpec, DumpError, Header, checksum
from toppo.dump.zarr_store import Index, guarded

if TYPE_CHECKING:
    import h5py

_HEADER = "header"
_RUN = "run"
_WHOLE = slice(None)


class H5Source:
    """An archive, read like a dump. The file is opened for each read, so nothing is held open."""

    kind = "archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._record = self._read_header()
        self.header = Header.from_json(self._record, self.where)
        self.specs: Mapping[str, ArraySpec] = self.header.layout.arrays(*self.header.committed)

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        """Part of an array; see `Source.read`."""

        def get() -> npt.NDArray[Any]:
            with _open(self.path) as file:
                array = file[name].asstr() if self.specs[name].dtype == "str" else file[name]
                # h5py takes one increasing list of indices; a hull and numpy take any number in any order
                hull = tuple(slice(int(i.min()), int(i.max()) + 1) if isinstance(i, np.ndarray) else i for i in index)
                values = np.asarray(array[hull])
            if self.specs[name].dtype == "str":
                values = np.array(values.tolist())
            axis = 0
            for i in index:
                if isinstance(i, np.ndarray):
                    values = np.take(values, i - i.min(), axis=axis)
                axis += not isinstance(i, int)
            return values

        return guarded(get, f"{self.where}: {name}")

    def open(self, name: str) -> None:
        """Raise DumpError if the array is not there in the shape that the header says."""
        with _open(self.path) as file:
            shape = file[name].shape if name in file else None
        if shape != self.specs[name].shape:
            raise DumpError(f"{self.where}: {name} has shape {shape}, expected {self.specs[name].shape}")

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def damaged_metadata(self) -> list[tuple[str, str]]:
        """(what, how) for a header that does not match its checksum, and for logs that cannot be read."""
        damages = []
        if self._record.get("checksum") != checksum(self._record):
            damages.append((_HEADER, "does not match its checksum"))
        try:
            run_logs(self.path)
        except DumpError as error:
            damages.append((_RUN, str(error)))
        return damages

    def leftovers(self) -> list[str]:
        """None: an archive is written whole."""
        return []

    def _read_header(self) -> dict[str, Any]:
        def get() -> Any:
            with _open(self.path) as file:
                return json.loads(file[_HEADER].asstr()[()]) if _HEADER in file else {}

        record = guarded(get, f"{self.where}: this file")
        return record if isinstance(record, dict) else {}


def export(
    path: str | os.PathLike[str],
    h5path: str | os.PathLike[str],
    *,
    slabs: bool = False,
    keepbits: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write what is committed of a dump to one HDF5 file, whole or not at all; a file of that name is replaced.

    The configuration and logs of its run (see `run_logs`) go along, so that the archive is a record of the whole run.

    Args:
        path: whatever `open_dump` takes.
        h5path: the file to make.
        slabs: the gradients too; everything else always goes.
        keepbits: mantissa bits of the gradients to keep, 1 to 23; None keeps what the dump has.
        progress: called with (slabs done, slabs in all).

    Returns:
        The file.

    Raises:
        DumpError: nothing to export, no slabs to export, or damage.
        OSError: the file cannot be written.
    """
    dump = open_dump(path)
    if keepbits is not None and not (slabs and 1 <= keepbits <= 23):
        raise DumpError(
            "keepbits lies in 1..23 and needs slabs: Grams are kept in full; add --slabs or drop --keepbits"
        )
    if slabs:
        dump.require_slabs()
    if dump.n_snapshots == 0:
        raise DumpError(f"{dump.path}: holds no snapshot yet, nothing to export; wait for the run's first one")
    header = dump.source.header
    bits = header.layout.keepbits if keepbits is None else min(keepbits, header.layout.keepbits or 23)
    header = replace(header, layout=replace(header.layout, slabs=slabs, keepbits=bits))
    target = local_path(h5path)
    partial = target.with_name(target.name + ".partial")
    try:
        with _open(partial, "w") as file:
            _write(file, dump.source, header, keepbits, progress)
            _write_logs(file, run_logs(path))
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return target


def _write(
    file: h5py.File,
    source: Source,
    header: Header,
    keepbits: int | None,
    progress: Callable[[int, int], object] | None,
) -> None:
    record = header.to_json({})
    file[_HEADER] = json.dumps(record, indent=2)
    file[_HEADER].attrs["description"] = "layout, run attributes and counts, as JSON"
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
    for dim in {dim for spec in specs.values() for dim in spec.dims}:
        if dim not in file:
            file[dim] = np.arange(sizes[dim], dtype=np.int32)
        file[dim].make_scale(dim)
    for name, spec in specs.items():
        for axis, dim in enumerate(spec.dims):
            if name != dim:
                file[name].dims[axis].attach_scale(file[dim])
                file[name].dims[axis].label = dim


def _write_logs(file: h5py.File, logs: Mapping[str, str]) -> None:
    """Bytes, not HDF5 strings: those have no checksum."""
    for name, text in logs.items():
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        how = {"compression": "gzip", "shuffle": False, "fletcher32": True} if data.size else {}
        dataset = file.create_dataset(f"{_RUN}/{name}", data=data, **how)
        dataset.attrs["description"] = f"the run's {name}, UTF-8"


def archived_logs(path: Path) -> dict[str, bytes]:
    """What an archive keeps of its run directory, by file name; {} for one made of a bare dump.

    Raises:
        DumpError: not an archive, or damaged.
    """

    def get() -> dict[str, bytes]:
        with _open(path) as file:
            return {name: file[f"{_RUN}/{name}"][()].tobytes() for name in LOGS if f"{_RUN}/{name}" in file}

    return guarded(get, f"{path}: the run's logs")


def _open(path: Path, mode: str = "r") -> h5py.File:
    import h5py

    return h5py.File(path, mode)


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

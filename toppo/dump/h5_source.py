"""Reading an archive: a dump as one HDF5 file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toppo.dump.digests import Digests
from toppo.dump.documents import parse
from toppo.dump.errors import DumpError
from toppo.dump.h5_objects import dataset, is_h5, open_h5, text
from toppo.dump.h5_rest import differences
from toppo.dump.header import Header, checksum
from toppo.dump.indexing import Indices, as_indices, pick, places, stacked
from toppo.dump.log_files import LOGS, as_text
from toppo.dump.schema import ArraySpec
from toppo.dump.source import Index, guarded

if TYPE_CHECKING:
    import h5py

HEADER = "header"
"""Name of the entry that holds the header, as JSON."""

RUN = "run"
"""Name of the group that holds the logs of the run."""


_MOST_RATIO = 2000
"""Bytes of values for each byte in the file. gzip reaches about 1000."""


class H5Source:
    """An archive, read like a dump. It is a `Source`. The file is opened for each read, so nothing is held open.

    Whatever is read is compared with its digest. Archives made before there were digests have none.

    Args:
        path: the .h5 file.

    Raises:
        DumpError: the file is not an archive, is damaged, or has another schema version.
    """

    kind = "archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        if not guarded(lambda: is_h5(path), f"{path}: this file", self.where):
            raise DumpError(
                f"{path}: not an archive, or its start is damaged; "
                "give a run directory, its dump.zarr or an exported .h5",
                path=self.where,
            )
        self._record = guarded(lambda: _header(path), f"{path}: this file", self.where)
        self.header = Header.from_json(self._record, self.where)
        self.specs = self.header.layout.arrays(*self.header.committed)
        # version 1 had none at first
        has_digests = self.header.version > 1 or "digests" in self._record
        self._digests = Digests(self._record.get("digests")) if has_digests else None

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        def get() -> npt.NDArray[Any]:
            spec = self.specs[name]
            with open_h5(self.path) as file:
                return self._read(self._array(file, name, spec), name, spec, as_indices(index, spec.shape))

        return guarded(get, f"{self.where}: {name}", self.where)

    def open(self, name: str) -> None:
        def get() -> None:
            with open_h5(self.path) as file:
                self._array(file, name, self.specs[name])

        guarded(get, f"{self.where}: {name}", self.where)

    def size(self) -> int:
        return self.path.stat().st_size

    def damaged_metadata(self) -> list[tuple[str, str]]:
        damages = []
        if self._record.get("checksum") != checksum(self._record):
            damages.append((HEADER, "does not match its checksum"))
        try:
            archived_logs(self.path)
        except DumpError as error:
            damages.append((RUN, str(error)))
        if self._digests is not None:
            damages += differences(self.path, self.header, {HEADER, RUN})
        return damages

    def bindings(self) -> list[tuple[str, int | None, str]]:
        """An archive's digests are in its header, which has a checksum."""
        return []

    def leftovers(self) -> list[str]:
        """An archive is written whole, so nothing is left over."""
        if self._digests is not None:
            return []
        return ["carries no digests of its arrays, as archives of before: export it again to add them"]

    def _array(self, file: h5py.File, name: str, spec: ArraySpec) -> h5py.Dataset:
        import h5py

        array = dataset(file, name)
        text_type = h5py.check_string_dtype(array.dtype) is not None
        if text_type != (spec.dtype == "str") or not (text_type or array.dtype == np.dtype(spec.dtype)):
            raise ValueError(f"holds {array.dtype}, expected {spec.dtype}")
        if array.shape != spec.shape:
            raise ValueError(f"has shape {array.shape}, expected {spec.shape}")
        if array.nbytes > _MOST_RATIO * array.id.get_storage_size():
            raise ValueError("claims more values than the file holds")
        return array

    def _read(self, array: h5py.Dataset, name: str, spec: ArraySpec, index: Indices) -> npt.NDArray[Any]:
        at = [places(i, n) for i, n in zip(index[:3], spec.shape[:3], strict=True)]
        if any(len(place) == 0 for place in at):
            return pick(np.empty(spec.shape, "U1" if spec.dtype == "str" else spec.dtype), index)
        if not spec.by_row:
            first, stop = (0, spec.shape[0]) if spec.steps == 0 else (at[0].min(), at[0].max() + 1)
            values = self._block(array, name, spec, (slice(int(first), int(stop)),))
            cut = index[0]
            if spec.steps:
                cut = cut - int(first) if isinstance(cut, int) else at[0] - int(first)
            return pick(values, (cut, *index[1:]))
        rows = slice(int(at[2].min()), int(at[2].max()) + 1)
        task = index[2] - rows.start if isinstance(index[2], int) else at[2] - rows.start

        def slabs() -> Iterator[npt.NDArray[Any]]:
            for snapshot in at[0]:
                for minibatch in at[1]:
                    block = (slice(int(snapshot), int(snapshot) + 1), slice(int(minibatch), int(minibatch) + 1), rows)
                    yield pick(self._block(array, name, spec, block)[0, 0], (task, index[3]))

        found = stacked(slabs(), len(at[0]) * len(at[1]))
        assert found is not None  # an empty part was answered above
        values = found.reshape((len(at[0]), len(at[1]), *found.shape[1:]))
        keep = tuple(0 if isinstance(i, int) else slice(None) for i in index[:2])
        return pick(values, (*keep, *(slice(None),) * (values.ndim - 2)))

    def _block(self, array: h5py.Dataset, name: str, spec: ArraySpec, block: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Whole units of an array, checked."""
        values = np.asarray((array.asstr() if spec.dtype == "str" else array)[block])
        if spec.dtype == "str":
            values = np.array(values.tolist())
        if self._digests is not None:
            self._digests.check(name, spec, tuple(s.start for s in block) if spec.steps else (), values)
        return values


def archived_logs(path: Path) -> dict[str, str]:
    """The logs that an archive keeps of its run: file name -> text. {} for the archive of a bare dump.

    Raises:
        DumpError: the file is not an archive, or is damaged.
    """

    def get() -> dict[str, bytes]:
        known = _header(path).get("logs")
        with open_h5(path) as file:
            there = [name for name in LOGS if RUN in file and name in file[RUN]]
            logs = {name: np.asarray(dataset(file, f"{RUN}/{name}")[()], np.uint8).tobytes() for name in there}
        if known is not None and known != log_digests(logs):
            raise ValueError("they are not what was archived")
        return logs

    return as_text(guarded(get, f"{path}: the run's logs", str(path)), str(path))


def log_digests(logs: dict[str, bytes]) -> dict[str, str]:
    """File name -> SHA-256 (hex) of a log."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in logs.items()}


def _header(path: Path) -> dict[str, Any]:
    with open_h5(path) as file:
        content = text(file, HEADER) if HEADER in file else "{}"
    return parse(content.encode(), str(path), f"its {HEADER}")

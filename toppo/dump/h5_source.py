"""Reading an archive: a dump as one HDF5 file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toppo.dump.errors import DumpError
from toppo.dump.log_files import LOGS, as_text
from toppo.dump.schema import Header, checksum
from toppo.dump.source import Index, guarded

if TYPE_CHECKING:
    import h5py

HEADER = "header"
"""Name of the entry that holds the header, as JSON."""

RUN = "run"
"""Name of the group that holds the logs of the run."""


class H5Source:
    """An archive, read like a dump. It is a `Source`. The file is opened for each read, so nothing is held open.

    Args:
        path: the .h5 file.

    Raises:
        DumpError: the file is not an archive, is damaged, or has another schema version.
    """

    kind = "archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._record = self._read_header()
        self.header = Header.from_json(self._record, self.where)
        self.specs = self.header.layout.arrays(*self.header.committed)

    def read(self, name: str, index: Index) -> npt.NDArray[Any]:
        def get() -> npt.NDArray[Any]:
            with open_h5(self.path) as file:
                array = file[name].asstr() if self.specs[name].dtype == "str" else file[name]
                # h5py takes only one list of indices, in increasing order. So h5py reads the range of each list, and
                # numpy picks from it.
                ranges = tuple(slice(int(i.min()), int(i.max()) + 1) if isinstance(i, np.ndarray) else i for i in index)
                values = np.asarray(array[ranges])
            if self.specs[name].dtype == "str":
                values = np.array(values.tolist())
            axis = 0
            for i in index:
                if isinstance(i, np.ndarray):
                    values = np.take(values, i - i.min(), axis=axis)
                axis += not isinstance(i, int)
            return values

        return guarded(get, f"{self.where}: {name}", self.where)

    def open(self, name: str) -> None:
        with open_h5(self.path) as file:
            shape = file[name].shape if name in file else None
        if shape != self.specs[name].shape:
            raise DumpError(
                f"{self.where}: {name} has shape {shape}, expected {self.specs[name].shape}", path=self.where
            )

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
        return damages

    def leftovers(self) -> list[str]:
        return []  # an archive is written whole

    def _read_header(self) -> dict[str, Any]:
        def get() -> Any:
            with open_h5(self.path) as file:
                return json.loads(file[HEADER].asstr()[()]) if HEADER in file else {}

        record = guarded(get, f"{self.where}: this file", self.where)
        return record if isinstance(record, dict) else {}


def archived_logs(path: Path) -> dict[str, str]:
    """The logs that an archive keeps of its run: file name -> text. {} for the archive of a bare dump.

    Raises:
        DumpError: the file is not an archive, or is damaged.
    """

    def get() -> dict[str, bytes]:
        with open_h5(path) as file:
            return {name: file[f"{RUN}/{name}"][()].tobytes() for name in LOGS if f"{RUN}/{name}" in file}

    return as_text(guarded(get, f"{path}: the run's logs", str(path)), str(path))


def open_h5(path: Path, mode: str = "r") -> h5py.File:
    """The open HDF5 file at a path; `mode` is h5py's, "r" or "w"."""
    import h5py

    return h5py.File(path, mode)

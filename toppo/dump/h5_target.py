"""A new HDF5 file on a disk that may be full."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import h5py


@contextmanager
def new_h5(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file, open for writing within the block.

    The library gets every byte to the disk through `_Target`. Where HDF5 itself meets a full disk it cannot close its
    objects any more: it repeats the error for each of them on stderr, and crashes when the process ends.

    Raises:
        OSError: the first write that failed. The file is not whole then.
    """
    import h5py

    with path.open("w+b", buffering=0) as file:
        target = _Target(file)
        try:
            with h5py.File(target, "w") as archive:
                yield archive
        finally:
            if target.failure is not None:
                raise target.failure


class _Target(io.RawIOBase):
    """A file as h5py writes to it. It keeps the first error for its owner, and takes what follows without writing."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        self._try(lambda: self._write_all(memoryview(data).cast("B")))
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self._try(lambda: self._file.truncate(size))
        return self.tell() if size is None else size

    def flush(self) -> None:
        self._try(self._file.flush)

    def readinto(self, buffer: Any) -> int:
        buffer[:] = self._file.read(len(buffer)).ljust(len(buffer), b"\0")  # zeros for what could not be written
        return len(buffer)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _write_all(self, rest: memoryview) -> None:
        while rest:  # an unbuffered file may take a part at a time
            rest = rest[self._file.write(rest) :]

    def _try(self, action: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                action()
            except OSError as error:
                self.failure = error

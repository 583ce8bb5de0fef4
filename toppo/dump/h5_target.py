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

    It has the format of HDF5 1.10, the first with a checksum in each of its own structures.

    The library gets every byte to the disk through `_Target`. Where HDF5 itself meets a full disk it cannot close its
    objects any more: it repeats the error for each of them on stderr, and crashes when the process ends.

    Raises:
        OSError: the first write that failed. The file is not whole then.
    """
    import h5py

    with path.open("w+b", buffering=0) as file:
        target = _Target(file)
        try:
            with h5py.File(_created(target)) as archive:
                yield archive
        finally:
            if target.failure is not None:
                raise target.failure


def _created(target: _Target) -> h5py.h5f.FileID:
    """The new file behind a target. The property lists end with this call: they hold the target too, and one that lives
    on until the interpreter ends would let go of it too late."""
    import h5py

    access, creation = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, target)
    creation.set_obj_track_times(False)  # the same dump gives the same bytes
    name = repr(target).encode("ascii", "replace")  # as h5py names a Python file
    return h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access)


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

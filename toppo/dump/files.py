"""Where a dump's files lie: a local directory, or any fsspec URL. Keys are paths relative to the dump."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toppo.dump.schema import DumpError

if TYPE_CHECKING:
    from zarr.abc.store import Store


class Files(Protocol):
    """The file operations a dump needs."""

    @property
    def where(self) -> str:
        """Path or URL, for messages."""

    def read(self, key: str) -> bytes | None:
        """Content of a file, None if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Write a new file; a crash may leave it torn until `sync` returns."""

    def replace(self, key: str, data: bytes) -> None:
        """Write a file whole and lasting: a reader, or a crash, sees the old content or the new."""

    def listing(self) -> Iterator[str]:
        """Key of every file of the dump."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` without a file, or with an empty one: Zarr takes an empty shard for one never written."""

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""

    def sync(self, keys: Iterable[str]) -> None:
        """Return once these files survive a power cut."""

    def size(self) -> int:
        """Bytes of all files."""

    def store(self, *, read_only: bool) -> Store:
        """The same place as a Zarr store."""


class LocalFiles:
    """A directory of the local file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def where(self) -> str:
        """The path."""
        return str(self.root)

    def read(self, key: str) -> bytes | None:
        """See `Files`."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """See `Files`."""
        (self.root / key).write_bytes(data)

    def replace(self, key: str, data: bytes) -> None:
        """See `Files`; the content is on disk before the name is."""
        target = self.root / key
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_bytes(data)
            fsync(partial)
            partial.replace(target)
            fsync(target.parent)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def listing(self) -> Iterator[str]:
        """See `Files`."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """See `Files`."""
        return [key for key in keys if not _size(self.root / key)]

    def delete(self, key: str) -> None:
        """See `Files`."""
        (self.root / key).unlink(missing_ok=True)

    def sync(self, keys: Iterable[str]) -> None:
        """See `Files`. A journalling file system keeps the names too, no later than that of the `replace` to follow."""
        for key in keys:
            fsync(self.root / key)

    def size(self) -> int:
        """See `Files`."""
        return sum((self.root / key).stat().st_size for key in self.listing())

    def store(self, *, read_only: bool) -> Store:
        """See `Files`."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=read_only)


class RemoteFiles:
    """A place behind an fsspec URL. One object is replaced at a time; durability is the service's."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        except ImportError as error:
            raise DumpError(f"{url}: URLs need fsspec; pip install 'toppo[remote]'") from error
        self.where = url.rstrip("/")
        fs, root = url_to_fs(self.where)
        self._fs: Any = fs
        self._root = str(root).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str) -> bytes | None:
        """See `Files`."""
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """See `Files`."""
        self._fs.pipe_file(self._path(key), data)

    def replace(self, key: str, data: bytes) -> None:
        """See `Files`; an object store replaces whole objects."""
        self._fs.pipe_file(self._path(key), data)

    def listing(self) -> Iterator[str]:
        """See `Files`."""
        self._fs.invalidate_cache()
        for path in self._fs.find(self._root):
            yield str(path)[len(self._root) :].lstrip("/")

    def missing(self, keys: Iterable[str]) -> list[str]:
        """See `Files`: one request for one key, one listing for more, and one each where a listing tells no sizes."""
        wanted = list(keys)
        if len(wanted) == 1:
            path = self._path(wanted[0])
            return [] if self._fs.exists(path) and self._fs.size(path) else wanted
        self._fs.invalidate_cache()
        found = self._fs.find(self._root, detail=True)

        def size(path: str) -> int | None:
            told: int | None = found.get(path, {}).get("size", 0)
            return self._fs.size(path) if told is None else told

        return [key for key in wanted if not size(self._path(key))]

    def delete(self, key: str) -> None:
        """See `Files`."""
        if self._fs.exists(self._path(key)):
            self._fs.rm_file(self._path(key))

    def sync(self, keys: Iterable[str]) -> None:
        """Nothing to do: an object store answers once the object is kept."""

    def size(self) -> int:
        """See `Files`."""
        return int(self._fs.du(self._root))

    def store(self, *, read_only: bool) -> Store:
        """See `Files`."""
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.where, read_only=read_only)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an fsspec URL rather than a local path; file:// counts as local."""
    return "://" in str(path) and not str(path).startswith("file://")


def local_path(path: str | os.PathLike[str]) -> Path:
    """A local path, from a path or a file:// URL."""
    return Path(str(path).removeprefix("file://")).expanduser()


def files_at(path: str | os.PathLike[str]) -> Files:
    """The dump's files at a local path or an fsspec URL."""
    return RemoteFiles(str(path)) if is_url(path) else LocalFiles(local_path(path))


def remove_tree(path: Path) -> None:
    """Delete what an interrupted creation left behind."""
    shutil.rmtree(path, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def fsync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

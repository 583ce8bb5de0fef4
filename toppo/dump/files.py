"""Where the files of a dump lie: a local directory, or any fsspec URL. A key is a file's path relative to the dump."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toppo.common import files as common
from toppo.dump.errors import DumpError

if TYPE_CHECKING:
    from zarr.abc.store import Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://")  # one letter is a drive of Windows
_FILE_URL = re.compile(r"file:(?=/)(//localhost(?=/)|//)?", re.IGNORECASE)


class Files(Protocol):
    """The file operations that a dump needs."""

    @property
    def where(self) -> str:
        """Path or URL, for messages."""

    def read(self, key: str) -> bytes | None:
        """Content of a file; None if there is no such file."""

    def write(self, key: str, data: bytes) -> None:
        """Write a new file. A crash may leave it torn until `sync` returns."""

    def replace(self, key: str, data: bytes) -> None:
        """Write a file whole and lasting: a reader, or a crash, sees either the old content or the new."""

    def listing(self) -> Iterator[str]:
        """Key of every file of the dump."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The `keys` whose file is missing or empty. Zarr takes an empty shard for one that was never written."""

    def delete(self, key: str) -> None:
        """Remove a file, if it exists."""

    def sync(self, keys: Iterable[str]) -> None:
        """Return once these files survive a power cut."""

    def size(self) -> int:
        """Bytes of all files."""

    def store(self, *, read_only: bool) -> Store:
        """The same place as a Zarr store."""


class LocalFiles:
    """A directory of the local file system.

    Args:
        root: the dump's directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def where(self) -> str:
        return str(self.root)

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        (self.root / key).write_bytes(data)

    def replace(self, key: str, data: bytes) -> None:
        common.write_whole(self.root / key, data)

    def listing(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not _size(self.root / key)]

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def sync(self, keys: Iterable[str]) -> None:
        """Wait for the content only. A journalling file system keeps the names by the next `replace` at the latest."""
        for key in keys:
            common.fsync(self.root / key)

    def size(self) -> int:
        return sum((self.root / key).stat().st_size for key in self.listing())

    def store(self, *, read_only: bool) -> Store:
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=read_only)


class RemoteFiles:
    """A place behind an fsspec URL. The storage service replaces each object whole, and keeps it safe.

    Args:
        url: the dump's URL.

    Raises:
        DumpError: fsspec is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        except ImportError as error:
            raise DumpError(f"{url}: URLs need fsspec; pip install 'toppo[remote]'", path=url) from error
        self.where = url.rstrip("/")
        fs, root = url_to_fs(self.where)
        self._fs: Any = fs
        self._root = str(root).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(key), data)

    def replace(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(key), data)

    def listing(self) -> Iterator[str]:
        self._fs.invalidate_cache()
        for path in self._fs.find(self._root):
            yield str(path)[len(self._root) :].lstrip("/")

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Make one request for one key, or one listing for many. A listing without sizes costs one request per key."""
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
        if self._fs.exists(self._path(key)):
            self._fs.rm_file(self._path(key))

    def sync(self, keys: Iterable[str]) -> None:
        """Do nothing: an object store answers once the object is kept."""

    def size(self) -> int:
        return int(self._fs.du(self._root))

    def store(self, *, read_only: bool) -> Store:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.where, read_only=read_only)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an fsspec URL ("s3://bucket/run1"). A file: URL and a drive ("C:/runs") are local paths."""
    text = os.fspath(path)
    return _URL.match(text) is not None and _FILE_URL.match(text) is None


def local_path(path: str | os.PathLike[str]) -> Path:
    """A local path, from a path or from a file: URL ("file:///data/my%20runs").

    Like fsspec, it takes a relative path after "file://" too.
    """
    text = os.fspath(path)
    if (scheme := _FILE_URL.match(text)) is not None:
        from urllib.request import url2pathname  # imported late, because it imports Python's whole HTTP client

        text = url2pathname(text[scheme.end() :])
    return Path(text).expanduser()


def files_at(path: str | os.PathLike[str]) -> Files:
    """The files of the dump at a local path or an fsspec URL."""
    return RemoteFiles(os.fspath(path)) if is_url(path) else LocalFiles(local_path(path))


def remove_tree(path: Path) -> None:
    """Delete what an interrupted creation left behind."""
    shutil.rmtree(path, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

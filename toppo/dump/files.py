"""Where the files of a dump lie: a local directory, or any fsspec URL. A key is a file's path relative to the dump."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from toppo.common import files as common
from toppo.dump.errors import DumpError
from toppo.dump.urls import check_url

if TYPE_CHECKING:
    from zarr.abc.store import Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://")  # one letter is a drive of Windows
_NO_LINK, _NO_WAIT, _BINARY = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
_WAITS = 8  # files that are waited for at a time
_AT_ONCE = 32  # objects fetched at a time from a remote place
_FILE_URL = re.compile(r"file:(?=/)(//localhost(?=/)|//)?", re.IGNORECASE)


class Files(Protocol):
    """The file operations that a dump needs."""

    @property
    def where(self) -> str:
        """Path or URL, for messages."""

    def read(self, key: str) -> bytes | None:
        """Content of a file; None if there is no such file.

        Raises:
            DumpError: something else than a file is in its place: a link, a directory, a pipe or a device.
        """

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        """Bytes of a file; None if there is no such file. It may give fewer, where the file ends before.

        Args:
            key: the file.
            start: index of the first byte; below 0 it counts from the end.
            length: how many bytes.

        Raises:
            DumpError: see `read`.
        """

    def read_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each key in order, with what `read` gives for it. A remote place fetches several at a time."""

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Write a new file of these parts, one after the other. A crash may leave it torn until `sync` returns."""

    def replace(self, key: str, data: bytes) -> None:
        """Write a file whole and lasting: a reader, or a crash, sees either the old content or the new."""

    def listing(self) -> Iterator[str]:
        """Key of every file of the dump."""

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
        self._place = os.fspath(root)
        self._folders: set[str] = set()  # those known to be no links

    @property
    def where(self) -> str:
        return str(self.root)

    def read(self, key: str) -> bytes | None:
        with self._opened(key) as file:
            return None if file is None else bytes(file.read())

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        with self._opened(key) as file:
            if file is None:
                return None
            if start < 0:
                start = max(0, os.fstat(file.fileno()).st_size + start)
            file.seek(start)
            return file.read(length)

    def read_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        return ((key, self.read(key)) for key in keys)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO | None]:
        """A file of the dump, open for reading; None if there is none.

        A link could lead to a file of somebody else, and a pipe would wait forever, so only plain files are opened. The
        root itself may be a link: a run can keep its dump on another disk.
        """
        path = f"{self._place}/{key}"  # text: pathlib takes longer than the file system
        folder = key.rpartition("/")[0]
        try:
            if folder and folder not in self._folders:
                if _kind(os.lstat(f"{self._place}/{folder}")) != "directory":
                    raise self._refused(folder)
                self._folders.add(folder)
            descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT | _BINARY)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            if (self.root / key).is_symlink() or (self.root / key).is_dir():
                raise self._refused(key) from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or (not _NO_LINK and (self.root / key).is_symlink()):
            os.close(descriptor)
            raise self._refused(key)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open takes no descriptor
            yield file

    def _refused(self, key: str) -> DumpError:
        path = self.root / key
        kind = _kind(path.lstat())
        return DumpError(f"{path}: is a {kind}, where a dump has a file or folder of its own", path=self.where)

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        with (self.root / key).open("xb") as file:  # a new one: never through a link that somebody put there
            file.writelines(parts)

    def replace(self, key: str, data: bytes) -> None:
        common.write_whole(self.root / key, data)

    def listing(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.root):
            inside = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            yield from (prefix + name for name in names)

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def sync(self, keys: Iterable[str]) -> None:
        """Wait for the content only. A journalling file system keeps the names by the next `replace` at the latest.

        The waits run at the same time, because a file system ends many of them with one write of its journal: eight at
        a time take less than a tenth of the time of one after the other.
        """
        from concurrent.futures import ThreadPoolExecutor

        paths = [self.root / key for key in keys]
        try:
            with ThreadPoolExecutor(_WAITS) as pool:
                list(pool.map(common.fsync, paths))
        except RuntimeError:  # the interpreter ends, and starts no thread any more
            for path in paths:
                common.fsync(path)

    def size(self) -> int:
        return sum((self.root / key).lstat().st_size for key in self.listing())

    def store(self, *, read_only: bool) -> Store:
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=read_only)


class RemoteFiles:
    """A place behind an fsspec URL. The storage service replaces each object whole, and keeps it safe.

    Args:
        url: the dump's URL.

    Raises:
        DumpError: fsspec, or its part for this protocol, is not installed; or the protocol is not allowed.
    """

    def __init__(self, url: str) -> None:
        check_url(url)
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        except ImportError as error:
            raise DumpError(f"{url}: URLs need fsspec; pip install 'toppo[remote]'", path=url) from error
        self.where = url.rstrip("/")
        try:
            fs, root = url_to_fs(self.where)
        except (ImportError, ValueError) as error:  # the package of a protocol is missing, or the URL is malformed
            raise DumpError(f"{url}: cannot be opened ({error})", path=url) from error
        self._fs: Any = fs
        self._root = str(root).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def read_part(self, key: str, start: int, length: int) -> bytes | None:
        end = None if start < 0 and length >= -start else start + length
        try:
            return bytes(self._fs.cat_file(self._path(key), start=start, end=end))
        except (FileNotFoundError, IsADirectoryError):
            return None

    def read_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        left = iter(keys)
        while batch := list(islice(left, _AT_ONCE)):
            if len(batch) == 1:
                yield batch[0], self.read(batch[0])
                continue
            found = self._fs.cat([self._path(key) for key in batch], on_error="return")
            for key in batch:
                content = found.get(self._path(key))
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError | IsADirectoryError):
                    raise content
                yield key, None if content is None or isinstance(content, Exception) else bytes(content)

    def write(self, key: str, parts: Sequence[bytes]) -> None:
        self._fs.pipe_file(self._path(key), b"".join(parts))

    def replace(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(key), data)

    def listing(self) -> Iterator[str]:
        self._fs.invalidate_cache()
        for path in self._fs.find(self._root):
            yield str(path)[len(self._root) :].lstrip("/")

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


def place_of(files: Files) -> str:
    """The one name of a place that several paths lead to: its real path, or its URL."""
    return str(files.root.resolve()) if isinstance(files, LocalFiles) else files.where


def remove_tree(path: Path) -> None:
    """Delete a directory that was made in vain."""
    shutil.rmtree(path, ignore_errors=True)


def _kind(status: os.stat_result) -> str:
    """What lies at a path, in a word or two."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe"}
    return kinds.get(stat.S_IFMT(status.st_mode), "device")

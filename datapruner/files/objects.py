"""Folders and files on an object store, through fsspec.

There are no folders, renames or locks: a file is put whole, or only where none is, and a listing is always fresh.
What fails for a moment is tried again; an error is FileNotFoundError, FileExistsError or PermissionError, as of a disk,
or one sentence.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

from datapruner.errors import DataPrunerError
from datapruner.files.remote import LIBRARIES, check_url, label_of, not_installed, reason_of, unreachable
from datapruner.files.retrying import retried, status_of
from datapruner.text import safe_text

T = TypeVar("T")

HEAD_BYTES = 1 << 17
"""Read first: the head of a shard of 4,096 rows, in one request."""
WHOLE_BYTES = 1 << 20
"""Files up to this size are read in one request."""
PUT_BYTES = 64 << 20
"""Larger ones are put in parts."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
"""What the stores call the moment at which a file was put, by their own clock."""

_opened: dict[tuple[int, str], Any] = {}
_opening: dict[int, threading.Lock] = {}


def file_system(protocol: str) -> Any:
    """Give the file system of a protocol for this process: a forked child needs its own, as its parent's hangs.

    Raises
    ------
    DataPrunerError
        The package that speaks it is not there, or it does not take what the environment says.
    """
    pid = os.getpid()
    with _opening.setdefault(pid, threading.Lock()):
        if (pid, protocol) not in _opened:
            _opened[pid, protocol] = _open(protocol)
    return _opened[pid, protocol]


def _open(protocol: str) -> Any:
    import fsspec
    from fsspec.asyn import reset_lock

    if any(owner != os.getpid() for owner, _ in _opened):
        reset_lock()  # which a thread of the parent may have held
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if LIBRARIES.get(protocol) == "s3fs":  # attempts are counted in one place
        named = fsspec.config.conf.get(protocol, {}).get("config_kwargs")
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            **(named if isinstance(named, dict) else {}),
            "retries": {"total_max_attempts": 1},
        }
    try:
        opened = fsspec.filesystem(protocol, **options)
    except ImportError:
        raise not_installed(f"{protocol}://") from None
    except Exception as error:
        raise unreachable(f"{protocol}://", error) from None
    if LIBRARIES.get(protocol) == "s3fs":
        opened.retries = 1
    return opened


@dataclass(frozen=True)
class ObjectFolder:
    """A prefix of an object store.

    Attributes
    ----------
    url : str
        Such as ``s3://bucket/prefix``.
    """

    url: str

    @classmethod
    def of(cls, url: str) -> ObjectFolder:
        """Take an address that a user gave.

        Raises
        ------
        DataPrunerError
            It carries credentials, or names no bucket.
        """
        return cls(check_url(url).rstrip("/"))

    def __str__(self) -> str:
        return label_of(self.url)

    def __truediv__(self, name: str) -> ObjectFolder:
        """Give a folder below."""
        return ObjectFolder(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> ObjectFolder:
        """The folder that it lies in."""
        return ObjectFolder(self.url.rpartition("/")[0])

    def call(self, do: Callable[[Any], T]) -> T:
        """Do something with the file system."""
        fs = file_system(self.url.partition("://")[0])
        try:
            return retried(lambda: do(fs), str(self))
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            status = status_of(error)
            if status in (409, 412):  # what a put that asks for no file to be there is answered
                raise FileExistsError(errno.EEXIST, "is there", str(self)) from None
            if status == 404:
                raise FileNotFoundError(errno.ENOENT, "is not there", str(self)) from None
            if isinstance(error, PermissionError) or status in (401, 403):
                raise PermissionError(errno.EACCES, reason_of(error), str(self)) from None
            if isinstance(error, NotImplementedError) or status == 501:
                raise OSError(errno.ENOSYS, reason_of(error), str(self)) from None
            raise unreachable(str(self), error) from None

    def tree(self) -> dict[str, ObjectFile]:
        """List all that lies below, by its path as seen from here.

        Raises
        ------
        DataPrunerError
            It cannot be listed.
        """

        def listed(fs: Any) -> dict[str, Any]:
            fs.invalidate_cache()
            return cast(dict[str, Any], fs.find(self.url, detail=True))

        start = len(self._path) + 1
        try:
            found = self.call(listed)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataPrunerError(f"the store {self} cannot be listed: {error.strerror}") from None
        return {
            path[start:]: ObjectFile(self, path[start:], int(info.get("size") or 0), _moment(info))
            for path, info in found.items()
            if len(path) > start
        }

    def files(self) -> dict[str, ObjectFile]:
        """List the files that lie right here, by name."""
        return {name: file for name, file in self.tree().items() if "/" not in name}

    def put(self, name: str, fill: Callable[[IO[bytes]], None]) -> ObjectFile:
        """Put a file whole, in place of what lies there under its name."""
        from tempfile import NamedTemporaryFile

        with NamedTemporaryFile(prefix="datapruner-") as handle:
            fill(cast(IO[bytes], handle))
            handle.flush()
            size = handle.seek(0, 2)
            if size > PUT_BYTES:
                self._call_put(lambda fs: fs.put_file(handle.name, f"{self.url}/{name}"))
            else:
                handle.seek(0)
                self.put_bytes(name, handle.read())
        return ObjectFile(self, name, size)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small file whole."""
        self._call_put(lambda fs: fs.pipe_file(f"{self.url}/{name}", data))

    def put_file(self, name: str, path: Path) -> None:
        """Put a file of this machine whole."""
        if path.stat().st_size > PUT_BYTES:
            self._call_put(lambda fs: fs.put_file(str(path), f"{self.url}/{name}"))
        else:
            self.put_bytes(name, path.read_bytes())

    def _call_put(self, do: Callable[[Any], object]) -> None:
        try:
            self.call(do)
        except FileNotFoundError:
            raise DataPrunerError(f"the store {self} cannot be written: there is no such bucket") from None

    def copy(self, name: str, to: ObjectFolder) -> None:
        """Have the store copy a file to another of its folders, in place of what lies there under its name."""
        self.call(lambda fs: fs.cp_file(f"{self.url}/{name}", f"{to.url}/{name}"))

    def create(self, name: str, data: bytes) -> None:
        """Put a small file where none lies under its name.

        Raises
        ------
        FileExistsError
            One does; it may be this one, where an earlier answer was lost.
        OSError
            The store cannot tell.
        """

        def created(fs: Any) -> None:
            try:
                fs.pipe_file(f"{self.url}/{name}", data, mode="create")
            except (TypeError, ValueError) as error:  # it knows no such mode
                raise NotImplementedError(str(error)) from None

        self._call_put(created)

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes:
        """Read a file, or some of its bytes; fewer where it is shorter."""

        def got(fs: Any) -> bytes:
            try:  # without a first byte s3fs asks for the size before
                return cast(bytes, fs.cat_file(f"{self.url}/{name}", start=begin, end=end))
            except OSError as error:
                if status_of(error) == 416:
                    return b""
                raise

        return self.call(got)

    def discard(self, name: str) -> bool:
        """Remove a file; whether it is gone."""
        try:
            self.call(lambda fs: fs.rm_file(f"{self.url}/{name}"))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    @property
    def _path(self) -> str:
        return str(file_system(self.url.partition("://")[0])._strip_protocol(self.url))


@dataclass(frozen=True)
class ObjectFile:
    """A file of a folder on an object store, as it was listed.

    Attributes
    ----------
    parent : ObjectFolder
    name : str
    size : int
    modified : float
        Seconds since 1970 by the store's clock.
    """

    parent: ObjectFolder
    name: str
    size: int = field(default=0, compare=False)
    modified: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.parent}/{safe_text(self.name)}"

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    def open(self) -> IO[bytes]:
        """Open it to be read by ranges.

        Raises
        ------
        FileNotFoundError
            It is gone.
        """
        return cast(IO[bytes], Ranges(self))

    def read(self, begin: int, end: int) -> bytes:
        """Read some bytes."""
        return self.parent.read(self.name, begin, end)


class Ranges(io.RawIOBase):
    """Reads what is asked for, and the head with its first byte."""

    def __init__(self, file: ObjectFile) -> None:
        self.file, self.at = file, 0
        first = file.size if file.size <= WHOLE_BYTES else HEAD_BYTES
        self.head = file.read(0, first)

    def readable(self) -> bool:
        """Say so."""
        return True

    def seekable(self) -> bool:
        """Say so."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.file.size}[whence]
        self.at = max(start + offset, 0)
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; less only where the file ends, or is not as it was listed."""
        room = memoryview(buffer).cast("B")
        end = min(self.at + len(room), self.file.size)
        if end <= self.at:
            return 0
        got = self.part(self.at, end)
        room[: len(got)] = got
        self.at += len(got)
        return len(got)

    def part(self, begin: int, end: int) -> bytes:
        """Read some bytes, as several threads may at a time."""
        return self.head[begin:end] if end <= len(self.head) else self.file.read(begin, end)

    def readall(self) -> bytes:
        """Read the rest."""
        return self.read(max(self.file.size - self.at, 0)) or b""


def _moment(info: Mapping[str, Any]) -> float:
    """Give the moment at which a file was put."""
    for name in _MODIFIED:
        told = info.get(name)
        if isinstance(told, str):
            told = datetime.fromisoformat(told)
        if isinstance(told, datetime):
            return told.timestamp()
        if isinstance(told, (int, float)):
            return float(told)
    return 0.0

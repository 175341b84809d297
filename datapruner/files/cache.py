"""The cache's folder: whose it is, who may read it, and what in it may be read, written over and removed.

It may be another user's, read-only, shared, on a disk that fails, or hold anything under the names of our files. What
can be read is read; what is not a plain file of this user is neither waited for, written over nor removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.files.objects import ObjectFile, ObjectFolder
from datapruner.files.paths import expanded, is_file
from datapruner.files.remote import is_url, refuse_other
from datapruner.files.temporary import whole_file
from datapruner.text import safe_text

KEY = "DATAPRUNER_CACHE_KEY"
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where a folder is not ours to write; other faults (a full disk) pass or are mended."""
_SHARED = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISGID


class Hash(Protocol):
    """A hash of 16 bytes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Give the hash."""
        ...


@dataclass(frozen=True)
class Cache:
    """Where what was measured is kept.

    Attributes
    ----------
    folder : Path
        On this machine: all of it, or beside an object store what is mapped, and notes.
    far : ObjectFolder, optional
        The object store that holds the rest.
    """

    folder: Path
    far: ObjectFolder | None = None

    def __str__(self) -> str:
        return str(self.folder if self.far is None else self.far)


def cache_at(named: str | Path | None = None) -> Cache:
    """Give the cache of a name: a folder or an address; default ``DATAPRUNER_CACHE``, else the user's cache folder.

    Raises
    ------
    DataPrunerError
        An address carries credentials, or names no bucket; or it is a file.
    """
    named = named or os.environ.get("DATAPRUNER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    users = (Path(base) if base else Path.home() / ".cache") / "datapruner"
    if isinstance(named, str) and is_url(named):
        far = ObjectFolder.of(named)
        return Cache(users / "stores" / xxhash.xxh3_64_hexdigest(far.url.encode()), far)
    if named:
        refuse_other(named)
        if is_file(Path(named)):
            raise DataPrunerError(f"the cache {safe_text(str(named), 200)} is a file; name a folder")
    return Cache(expanded(Path(named)) if named else users)


def cache_folder() -> Path:
    """Give the cache's folder on this machine."""
    return cache_at().folder


def hasher(start: bytes = b"") -> Hash:
    """Start the hash that closes a file of the cache: XXH3, or BLAKE2b keyed by ``DATAPRUNER_CACHE_KEY``.

    Who has no key can then plant nothing in a cache that several share.
    """
    key = _key()
    return hashlib.blake2b(start, digest_size=16, key=key) if key else xxhash.xxh3_128(start)


def closing_digest(*parts: bytes | memoryview) -> bytes:
    """Give the hash that closes these bytes."""
    digest = hasher()
    for part in parts:
        digest.update(part)
    return digest.digest()


def keyed(name: str) -> str:
    """Give the name of a folder of the cache; each key has its own, so that none calls another's files damaged."""
    key = _key()
    return f"{name}-{hashlib.blake2b(b'name', digest_size=4, key=key).hexdigest()}" if key else name


def _key() -> bytes:
    secret = os.environ.get(KEY, "")
    return hashlib.sha256(os.fsencode(secret)).digest() if secret else b""


File = Path | ObjectFile


def open_plain(path: File) -> IO[bytes]:
    """Open a plain file to be read; a FIFO or a device, which could be read without end, is an error instead.

    Raises
    ------
    OSError
        There is none, or it cannot be read.
    """
    if isinstance(path, ObjectFile):
        return path.open()
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return os.fdopen(handle, "rb")


def is_ours(path: File) -> bool:
    """Whether nothing lies there, or a plain file of this user's: what may be written over and removed."""
    if isinstance(path, ObjectFile):
        return True
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def discard(path: File) -> bool:
    """Remove a file of ours; whether it is gone."""
    if isinstance(path, ObjectFile):
        return path.parent.discard(path.name)
    try:
        if is_ours(path):
            path.unlink(missing_ok=True)
            return True
    except OSError:
        pass
    return False


def size_and_age(path: File) -> tuple[int, float]:
    """Give a file's bytes, and when it was written or marked as used: seconds since 1970."""
    if isinstance(path, ObjectFile):
        return path.size, path.modified
    told = path.lstat()
    return told.st_size, told.st_mtime


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder of the cache, for this user alone (0700); where others may write the root, as open as that is.

    Raises
    ------
    OSError
        It cannot be made.
    """
    if not root.exists():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = _shared(root)
    missing = [each for each in (folder, *folder.parents) if root in each.parents and not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        if shared:
            each.chmod(shared)
    folder.mkdir(exist_ok=True)  # what is there and no folder is an error


def write_plain(path: Path, root: Path, data: bytes) -> None:
    """Write a small file of the cache whole, unless what lies there is not ours."""
    if is_ours(path):
        with whole_file(path, file_mode(root)) as handle:
            handle.write(data)


def file_mode(root: Path) -> int:
    """Give the mode that the cache's files are made with; the umask takes from it."""
    return 0o600 | _shared(root) & 0o066


def _shared(root: Path) -> int:
    """Give the mode of a root that others may write, else 0."""
    mode = stat.S_IMODE(root.stat().st_mode)
    return mode if mode & _SHARED else 0

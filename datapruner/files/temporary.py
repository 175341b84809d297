"""Temporary files and folders that belong to whoever holds their lock.

The kernel holds the lock and lets go of it however its process ends, so that it works between containers that share a
disk and a host name, where process numbers mean nothing. Where locks cannot be had (some network file systems), age
decides.
"""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: age decides
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "MARK",
    "hold",
    "is_held",
    "locked",
    "new_folder",
    "private_folder",
    "release",
    "remove",
    "sweep",
    "sync",
    "sync_folder",
    "whole_file",
]

MARK = ".tmp-"
STALE_SECONDS = 86400.0
"""Where there are no locks, what nobody has touched for so long belongs to nobody."""
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def _name(path: Path) -> Path:
    """Give a new name beside a path, short enough for any file system."""
    return path.with_name(f"{path.name[:100]}{MARK}{secrets.token_hex(6)}")


def _lock(handle: int, *, wait: bool = False) -> bool | None:
    """Take the lock of an open file or folder: True, False where somebody else has it, None where there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in BUSY else None
    return True


def _is_still(handle: int, path: Path) -> bool:
    """Whether a path still names what is open."""
    try:
        there = path.stat(follow_symlinks=False)
    except OSError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def new_folder(path: Path) -> tuple[Path, int]:
    """Make a temporary folder beside ``path`` and hold its lock.

    Returns
    -------
    Path, int
        The folder, and what to give :func:`release` once it is somebody else's.
    """
    while True:
        made = _name(path)
        made.mkdir(mode=0o755)
        # Before it is locked a sweep may take it for litter.
        try:
            handle = os.open(made, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _lock(handle) is not False and _is_still(handle, made):
            return made, handle
        os.close(handle)


def release(handle: int) -> None:
    """Let go of a lock."""
    os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is there, waiting for whoever has it; nothing where it goes meanwhile."""
    while True:
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            yield
            return
        try:
            _lock(handle, wait=True)
            if _is_still(handle, folder):
                yield
                return
        finally:
            os.close(handle)


@contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the place of ``path``, synced, when the block ends without an error."""
    while True:
        made = _name(path)
        with open(made, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as handle:
            if _lock(handle.fileno()) is False or not _is_still(handle.fileno(), made):
                continue
            try:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
                made.replace(path)
            except BaseException:
                with suppress(OSError):
                    made.unlink(missing_ok=True)
                raise
        sync(path.parent)
        return


def hold(path: Path, data: bytes, mode: int = 0o600) -> IO[bytes]:
    """Write a small file, not synced, whose lock is ours for as long as what is returned stays open."""
    while True:
        made = _name(path)
        handle = open(made, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if _lock(handle.fileno()) is False or not _is_still(handle.fileno(), made):
            handle.close()
            continue
        try:
            handle.write(data)
            handle.flush()
            made.replace(path)
        except BaseException:
            with suppress(OSError):
                made.unlink(missing_ok=True)
            with suppress(OSError):  # it tries to write again
                handle.close()
            raise
        return handle


def is_held(handle: int) -> bool | None:
    """Whether somebody holds the lock of an open file; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in BUSY else None
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def sync_folder(folder: Path) -> None:
    """Sync all files and folders below a folder, and itself."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place, name))
        sync(Path(place))


def sync(path: Path) -> None:
    """Sync a file, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot sync folders
            raise
    finally:
        os.close(handle)


def sweep(leftovers: Iterable[Path]) -> None:
    """Remove temporary files and folders that nobody holds; what cannot be removed stays for the next time."""
    for leftover in leftovers:
        with suppress(OSError):
            _sweep(leftover)


def _sweep(leftover: Path) -> None:
    found = leftover.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        return
    handle = os.open(leftover, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        held = _lock(handle)
        old = time.time() - found.st_mtime > STALE_SECONDS
        if (held or (held is None and old)) and _is_still(handle, leftover):
            remove(leftover)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder; what fails once is tried again."""
    for _ in range(2):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            return


_PRIVATE: dict[int, tuple[Path, int]] = {}


def private_folder() -> Path:
    """Make a folder for files that are mapped: it goes when this process ends, or with the next run that needs one.

    `datasets` caches converted files by path and time, so a file that is rewritten can be answered from the old copy;
    a folder of our own cannot go stale.
    """
    owner = os.getpid()  # a forked child inherits what is to be done at exit
    if owner not in _PRIVATE:
        base = Path(tempfile.gettempdir()) / "datapruner"
        sweep(base.parent.glob(f"{base.name}{MARK}*"))
        _PRIVATE[owner] = new_folder(base)
        _PRIVATE[owner][0].chmod(0o700)
        atexit.register(_forget, owner)
    return Path(tempfile.mkdtemp(dir=_PRIVATE[owner][0]))


def _forget(owner: int) -> None:
    if os.getpid() == owner:
        remove(_PRIVATE.pop(owner)[0])

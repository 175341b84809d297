"""Leases in a folder on a disk, each of which belongs to whoever holds its lock.

The kernel lets go of a lock however its process ends; on another machine, and where there are no locks, a lease counts
for ``LEASE_SECONDS`` after its last sign of life.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from weakref import WeakSet

import numpy as np

from datapruner.files.cache import closing_digest, discard, file_mode, make_folder, open_plain
from datapruner.files.temporary import MARK, hold, is_held, locked, sweep
from datapruner.signals.store.index import Halves
from datapruner.signals.store.shard_format import DIGEST_BYTES

FOLDER, SUFFIX = "claims", ".lease"
LEASE_SECONDS = 600.0
LOCKED_SECONDS = 3600.0
"""As long without a sign of life is a lease in force whose lock is held, as by a process that is stopped."""

_ours: WeakSet[LocalLease] = WeakSet()


def _forked() -> None:
    """Let a child not hold its parent's locks, which would outlive it."""
    for lease in _ours:
        lease.handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Other(NamedTuple):
    """Somebody else's lease that is in force.

    Attributes
    ----------
    name : str
    rows : ndarray, uint64
        First halves of its keys.
    waits : bool
        They are not being computed, but waited for.
    """

    name: str
    rows: Halves
    waits: bool


class LocalLease:
    """A lease of ours.

    Parameters
    ----------
    path : Path
    handle : IO
        Open, and locked for as long.
    """

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path, self.handle, self.name = path, handle, path.name
        _ours.add(self)

    def sign(self) -> None:
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self.path)

    def remove(self) -> None:
        """Let others have the rows."""
        discard(self.path)
        self.handle.close()


class LocalLeases:
    """The leases of a shelf.

    Parameters
    ----------
    folder : Path
        Theirs.
    root : Path
        Of the cache.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    def locked(self) -> AbstractContextManager[None]:
        """Keep others from laying leases while the block runs."""
        make_folder(self.folder, self.root)
        sweep(self.folder.glob(f"*{MARK}*"))
        return locked(self.folder)

    def lay(self, rows: Halves, *, waits: bool) -> LocalLease:
        """Lay a lease down."""
        path = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
        return LocalLease(path, hold(path, lease_bytes(_machine(), rows, waits=waits), file_mode(self.root)))

    def others(self, mine: str | None) -> Iterator[Other]:
        """Give those in force but for one's own, none where they cannot be listed; those of nobody any more go."""
        with suppress(OSError), os.scandir(self.folder) as listed:
            for entry in listed:
                path = self.folder / entry.name
                if path.suffix != SUFFIX or path.name == mine:
                    continue
                try:
                    yield _read(path)
                except OSError:
                    continue
                except (ValueError, KeyError, TypeError, RecursionError):
                    discard(path)


def lease_bytes(machine: str, rows: Halves, *, waits: bool) -> bytes:
    """Give the bytes of a lease."""
    line = json.dumps({"machine": machine, "waits": waits}).encode()
    body = line + b"\n" + rows.astype("<u8").tobytes()
    return body + closing_digest(body)


def read_lease(name: str, raw: bytes) -> tuple[Other, str]:
    """Take a lease apart, and give the machine that it is of.

    Raises
    ------
    ValueError, KeyError, TypeError, RecursionError
        It is not as it was written.
    """
    body = raw[:-DIGEST_BYTES]
    if closing_digest(body) != raw[-DIGEST_BYTES:]:
        raise ValueError
    line, _, rows = body.partition(b"\n")
    told = json.loads(line)
    other = Other(name, np.frombuffer(rows, "<u8").astype(np.uint64), bool(told["waits"]))
    return other, told["machine"]


def _read(path: Path) -> Other:
    """Read a lease.

    Raises
    ------
    OSError
        It is gone, or cannot be read.
    ValueError, KeyError, TypeError, RecursionError
        It is nobody's any more, or not as it was written.
    """
    with open_plain(path) as handle:
        old = time.time() - os.fstat(handle.fileno()).st_mtime
        other, machine = read_lease(path.name, handle.read())
        held = is_held(handle.fileno()) if machine == _machine() else None
        if held is False or old > (LOCKED_SECONDS if held else LEASE_SECONDS):
            raise ValueError
    return other


def _machine() -> str:
    """Name the running kernel, within which locks tell who lives."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

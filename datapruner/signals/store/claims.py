"""Claims: rows that somebody computes, so that nobody else does meanwhile.

Whoever computes rows of a shelf lays a *lease* beside it, a file that lists their keys; others pass those rows over and
wait for them, or take them over where the lease is nobody's any more. A claim is a help only: rows that two compute
all the same are right, and where a lease cannot be written there is none.

A lease belongs to whoever holds its lock, which the kernel lets go of however a process ends; on another machine, and
where there are no locks, it counts for ``LEASE_SECONDS`` after its last sign of life, which every batch gives. Who
finds nothing left to do lays down a lease that only waits. Who has much left of what others wait for then ends it
early and claims again, no more than a part of what is missing.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple
from weakref import WeakSet

import numpy as np

from datapruner.arrays import Flags
from datapruner.files.cache import closing_digest, discard, file_mode, make_folder, open_plain
from datapruner.files.temporary import MARK, hold, is_held, locked, sweep
from datapruner.signals.store.index import Halves, halves
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.shard_format import DIGEST_BYTES
from datapruner.signals.store.shards import BARRED, Shelf

logger = logging.getLogger(__name__)

FOLDER, SUFFIX = "claims", ".lease"
LEASE_SECONDS = 600.0
LOCKED_SECONDS = 3600.0
"""As long without a sign of life is a lease in force whose lock is held, as by a process that is stopped."""
SHARE_SECONDS = 20.0
"""Who has less than this left to do does not share it."""
LEAST_ROWS = 32
LOOK_SECONDS = 1.0
WAIT_SECONDS = 0.05, 2.0
"""Between two looks at others' leases: at first, and at most."""
TELL_SECONDS = 5.0

_holding = threading.local()
_ours: WeakSet[Lease] = WeakSet()


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
    path : Path
    rows : ndarray, uint64
        First halves of its keys.
    waits : bool
        They are not being computed, but waited for.
    """

    path: Path
    rows: Halves
    waits: bool


class Lease:
    """Rows that are ours to compute, or that we wait for; the file goes when it is given up.

    Parameters
    ----------
    path : Path
    handle : IO
        Open, and locked for as long.
    rows : ndarray, uint64
        First halves of the keys.
    """

    def __init__(self, path: Path, handle: IO[bytes], rows: Halves) -> None:
        self.path, self.handle, self.rows = path, handle, rows
        self.came, self.first = 0, 0.0
        self.last = self.looked = self.signed = time.monotonic()
        _ours.add(self)

    def sign(self, rows: int = 0) -> None:
        """Give a sign of life: so many rows came."""
        now = time.monotonic()
        self.first = self.first or now
        self.came += rows
        self.last = now
        if now - self.signed > LEASE_SECONDS / 20:
            self.signed = now
            with suppress(OSError):
                os.utime(self.path)

    @property
    def left_seconds(self) -> float:
        """What the rest takes, by the pace so far."""
        return (self.last - self.first) * (len(self.rows) - self.came) / max(self.came, 1)

    def give_up(self) -> None:
        """Let others have the rows."""
        discard(self.path)
        self.handle.close()


class Claims:
    """The leases of a shelf, and ours among them, as long as the block runs.

    Parameters
    ----------
    shelf : Shelf
    whole : bool
        Rows cost as much together as one of them, and are not shared.
    """

    def __init__(self, shelf: Shelf, *, whole: bool = False) -> None:
        self.shelf, self.folder, self.whole = shelf, shelf.folder / FOLDER, whole
        self.lease: Lease | None = None
        self.told = False
        # Who computes rows while it computes others neither claims nor waits: somebody could be waiting for those.
        self.nested = False

    def __enter__(self) -> Claims:
        """Begin."""
        depth = getattr(_holding, "depth", 0)
        self.nested, _holding.depth = depth > 0, depth + 1
        return self

    def __exit__(self, *raised: object) -> None:
        """Let others have what is ours."""
        _holding.depth -= 1
        if self.lease is not None:
            self.lease.give_up()

    def claim(self, keys: Keys) -> Flags:
        """Claim those of some rows that nobody else computes, in place of what was ours.

        Parameters
        ----------
        keys : ndarray of S16, shape (n,)

        Returns
        -------
        ndarray, bool, shape (n,)
            Which are ours to compute; where none is, others have all of them.
        """
        if not self.nested and self.shelf.folder not in BARRED:
            with suppress(OSError):
                return self._claim(halves(keys)[0])
        return np.ones(len(keys), dtype=np.bool_)

    def _claim(self, high: Halves) -> Flags:
        make_folder(self.folder, self.shelf.root)
        sweep(self.folder.glob(f"*{MARK}*"))
        with locked(self.folder):
            free, rivals = np.ones(len(high), dtype=np.bool_), 0
            for other in self.others():
                here = np.isin(high, other.rows)
                rivals += bool(here.any())
                if not other.waits:
                    free &= ~here
            if rivals and not self.whole:  # a part: less and less, so that all end at about one time
                most = max(-(-int(free.sum()) // (2 * (rivals + 1))), LEAST_ROWS)
                free[np.flatnonzero(free)[most:]] = False
            before, waits = self.lease, not free.any()
            self.lease = self._written(high if waits else high[free], waits)
            if before is not None:
                before.give_up()
            return free

    def _written(self, rows: Halves, waits: bool) -> Lease:
        body = (
            json.dumps({"machine": _machine(), "waits": waits}).encode()
            + b"\n"
            + rows.astype("<u8").tobytes()
        )
        path = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
        return Lease(path, hold(path, body + closing_digest(body), file_mode(self.shelf.root)), rows)

    def others(self) -> list[Other]:
        """Give the leases of others that are in force; those that are nobody's any more go."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as listed:
            for entry in listed:
                path = self.folder / entry.name
                if path.suffix != SUFFIX or (self.lease is not None and path == self.lease.path):
                    continue
                try:
                    found.append(_read(path))
                except OSError:
                    continue
                except (ValueError, KeyError, TypeError, RecursionError):
                    discard(path)
        return found

    def came(self, rows: int) -> bool:
        """Say that so many of our rows came; whether others wait for the rest, and it is much."""
        if self.lease is None:
            return False
        self.lease.sign(rows)
        if self.whole:
            return False
        now, mine = time.monotonic(), self.lease.rows
        if self.lease.left_seconds < SHARE_SECONDS or now - self.lease.looked < LOOK_SECONDS:
            return False
        self.lease.looked = now
        with suppress(OSError):
            return any(other.waits and np.isin(other.rows, mine).any() for other in self.others())
        return False

    def wait(self, keys: Keys) -> None:
        """Wait until one of the leases on some rows is given up, or nobody's any more."""
        high, start, pause = halves(keys)[0], time.monotonic(), WAIT_SECONDS[0]
        before: set[Path] = set()
        while True:
            others = [other for other in self.others() if not other.waits]
            here = {other.path for other in others if np.isin(high, other.rows).any()}
            if not here or before - here:
                return
            before = here
            if not self.told and time.monotonic() - start > TELL_SECONDS:
                self.told = True
                logger.warning(
                    "another run computes %s rows that this one needs: it waits for them", f"{len(keys):,}"
                )
            if self.lease is not None:
                self.lease.sign()
            time.sleep(pause)
            pause = min(2 * pause, WAIT_SECONDS[1])


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
        raw = handle.read()
        old = time.time() - os.fstat(handle.fileno()).st_mtime
        body = raw[:-DIGEST_BYTES]
        if closing_digest(body) != raw[-DIGEST_BYTES:]:
            raise ValueError
        line, _, rows = body.partition(b"\n")
        told = json.loads(line)
        held = is_held(handle.fileno()) if told["machine"] == _machine() else None
        if held is False or old > (LOCKED_SECONDS if held else LEASE_SECONDS):
            raise ValueError
    return Other(path, np.frombuffer(rows, "<u8").astype(np.uint64), bool(told["waits"]))


def _machine() -> str:
    """Name the running kernel, within which locks tell who lives."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

"""Leases on an object store, by its own clock.

There are no locks: whether a lease is in force says its age, which is the moment of its last sign of life against that
of a file that we have just put, both as the store's clock gave them. A lock is a file that is put only where there is
none; who finds one unchanged for ``LOCK_SECONDS`` takes it over. Where the store puts nothing under a condition, leases
are laid without a lock, and two that begin at one moment may compute the same rows.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from datapruner.errors import DataPrunerError
from datapruner.files.objects import ObjectFile, ObjectFolder
from datapruner.signals.store import leases
from datapruner.signals.store.index import Halves
from datapruner.signals.store.leases import SUFFIX, Other, lease_bytes, read_lease

logger = logging.getLogger(__name__)

LOCK = "lock"
LOCK_SECONDS = 20.0
"""So long unchanged, a lock is nobody's: whoever holds one lists leases, reads those that are new, and puts one."""
PAUSE_SECONDS = 0.05, 1.0
"""Between two attempts at a lock: at first, and at most; a random part of it is waited."""


class ObjectLease:
    """A lease of ours.

    Parameters
    ----------
    leases : ObjectLeases
    name : str
    body : bytes
    """

    def __init__(self, leases: ObjectLeases, name: str, body: bytes) -> None:
        self.leases, self.name, self.body, self.owner = leases, name, body, os.getpid()

    def sign(self) -> None:
        """Give a sign of life."""
        if self.owner == os.getpid():
            with suppress(OSError, DataPrunerError):
                self.leases.put(self.name, self.body)

    def remove(self) -> None:
        """Let others have the rows; a forked child leaves them to its parent."""
        if self.owner == os.getpid():
            with suppress(DataPrunerError):  # nobody's any more after a while
                self.leases.folder.discard(self.name)


class ObjectLeases:
    """The leases of a shelf.

    Parameters
    ----------
    folder : ObjectFolder
        Theirs.
    """

    def __init__(self, folder: ObjectFolder) -> None:
        self.folder = folder
        self.puts: dict[str, float] = {}
        self.known: dict[str, Other] = {}

    def put(self, name: str, body: bytes) -> None:
        """Put a file of ours, and note when."""
        self.folder.put_bytes(name, body)
        self.puts[name] = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from laying leases while the block runs."""
        token = secrets.token_hex(8).encode()
        held = self._lock(token)
        since = time.monotonic()
        try:
            yield
        finally:
            self.puts.pop(LOCK, None)
            if held:
                with suppress(OSError, DataPrunerError):  # taken over after a while
                    if time.monotonic() - since < LOCK_SECONDS / 2 or self.folder.read(LOCK) == token:
                        self.folder.discard(LOCK)

    def _lock(self, token: bytes) -> bool:
        """Take the lock; False where the store has none."""
        seen, since, pause = b"", time.monotonic(), PAUSE_SECONDS[0]
        while True:
            try:
                self.folder.create(LOCK, token)
            except FileExistsError:
                pass
            except OSError:
                return False
            else:
                self.puts[LOCK] = time.monotonic()
                return True
            try:
                there = self.folder.read(LOCK)
            except FileNotFoundError:
                continue
            if there == token:  # the answer was lost
                self.puts[LOCK] = time.monotonic()
                return True
            if there != seen:
                seen, since = there, time.monotonic()
            elif time.monotonic() - since > LOCK_SECONDS:
                logger.info("a lock of the store is nobody's any more: it is taken over")
                self.folder.discard(LOCK)
                pause = PAUSE_SECONDS[1]  # who sees the same does the same: not all at one moment
            time.sleep(random.random() * pause)  # noqa: S311
            pause = min(2 * pause, PAUSE_SECONDS[1])

    def lay(self, rows: Halves, *, waits: bool) -> ObjectLease:
        """Lay a lease down."""
        name, body = f"{secrets.token_hex(8)}{SUFFIX}", lease_bytes("", rows, waits=waits)
        self.put(name, body)
        return ObjectLease(self, name, body)

    def others(self, mine: str | None) -> Iterator[Other]:
        """Give those in force but for one's own; those that are nobody's any more go."""
        listed = self.folder.files()
        now = self._now(listed)
        for name, file in listed.items():
            if file.suffix != SUFFIX or name == mine:
                continue
            if now - file.modified > leases.LEASE_SECONDS:
                self.folder.discard(name)
                continue
            if name not in self.known:
                try:
                    self.known[name] = read_lease(name, self.folder.read(name))[0]
                except FileNotFoundError:
                    continue
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.folder.discard(name)
                    continue
            yield self.known[name]

    def _now(self, listed: dict[str, ObjectFile]) -> float:
        """Tell the store's time: of what we put, and what passed since; without any, our own clock's."""
        ours = [
            listed[name].modified + time.monotonic() - put
            for name, put in list(self.puts.items())
            if name in listed
        ]
        return max(ours, default=time.time())

"""Claims: rows that somebody computes, so that nobody else does meanwhile.

Whoever computes rows of a shelf lays a *lease* beside it, a file that lists their keys; others pass those rows over and
wait for them, or take them over where the lease is nobody's any more. A claim is a help only: rows that two compute
all the same are right, and where a lease cannot be written there is none.

Every batch gives a sign of life. Who finds nothing left to do lays down a lease that only waits. Who has much left of
what others wait for then ends it early and claims again, no more than a part of what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import numpy as np

from datapruner.arrays import Flags
from datapruner.errors import DataPrunerError
from datapruner.signals.store import leases
from datapruner.signals.store.index import Halves, halves
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.leases import LocalLease, LocalLeases, Other
from datapruner.signals.store.object_leases import ObjectLease, ObjectLeases
from datapruner.signals.store.places import ObjectPlace
from datapruner.signals.store.shards import BARRED, Shelf

logger = logging.getLogger(__name__)

SHARE_SECONDS = 20.0
"""Who has less than this left to do does not share it."""
LEAST_ROWS = 32
LOOK_SECONDS = 1.0
FAR_LOOKS = 5
"""Times as long between two looks while rows are computed, where each is a request."""
WAIT_SECONDS = 0.05, 2.0
"""Between two looks at others' leases: at first, and at most."""
TELL_SECONDS = 5.0

_holding = threading.local()


class Lease:
    """Rows that are ours to compute, or that we wait for, and how far we are.

    Parameters
    ----------
    laid : LocalLease or ObjectLease
        What tells others.
    rows : ndarray, uint64
        First halves of the keys.
    """

    def __init__(self, laid: LocalLease | ObjectLease, rows: Halves) -> None:
        self.laid, self.rows = laid, rows
        self.came, self.first = 0, 0.0
        self.last = self.looked = self.signed = time.monotonic()

    def sign(self, rows: int = 0) -> None:
        """Give a sign of life: so many rows came."""
        now = time.monotonic()
        self.first = self.first or now
        self.came += rows
        self.last = now
        if now - self.signed > leases.LEASE_SECONDS / 20:
            self.signed = now
            self.laid.sign()

    @property
    def left_seconds(self) -> float:
        """What the rest takes, by the pace so far."""
        return (self.last - self.first) * (len(self.rows) - self.came) / max(self.came, 1)


class Claims:
    """The leases of a shelf, and ours among them, as long as the block runs.

    Parameters
    ----------
    shelf : Shelf
    whole : bool
        Rows cost as much together as one of them, and are not shared.
    """

    def __init__(self, shelf: Shelf, *, whole: bool = False) -> None:
        self.shelf, self.whole = shelf, whole
        place = shelf.place
        self.leases: LocalLeases | ObjectLeases = (
            ObjectLeases(place.folder / leases.FOLDER)
            if isinstance(place, ObjectPlace)
            else LocalLeases(place.folder / leases.FOLDER, place.root)
        )
        self.look_seconds = LOOK_SECONDS * (FAR_LOOKS if shelf.is_far else 1)
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
            self.lease.laid.remove()

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
        if not self.nested and self.shelf.place.folder not in BARRED:
            with suppress(OSError):
                return self._claim(halves(keys)[0])
        return np.ones(len(keys), dtype=np.bool_)

    def _claim(self, high: Halves) -> Flags:
        with self.leases.locked():
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
            rows = high if waits else high[free]
            self.lease = Lease(self.leases.lay(rows, waits=waits), rows)
            if before is not None:
                before.laid.remove()
            return free

    def others(self) -> list[Other]:
        """Give the leases of others that are in force; those that are nobody's any more go."""
        return list(self.leases.others(None if self.lease is None else self.lease.laid.name))

    def came(self, rows: int) -> bool:
        """Say that so many of our rows came; whether others wait for the rest, and it is much."""
        if self.lease is None:
            return False
        self.lease.sign(rows)
        if self.whole:
            return False
        now, mine = time.monotonic(), self.lease.rows
        if self.lease.left_seconds < SHARE_SECONDS or now - self.lease.looked < self.look_seconds:
            return False
        self.lease.looked = now
        with suppress(OSError, DataPrunerError):  # whether the store answers, the next shard tells
            return any(other.waits and np.isin(other.rows, mine).any() for other in self.others())
        return False

    def wait(self, keys: Keys) -> None:
        """Wait until one of the leases on some rows is given up, or nobody's any more."""
        high, start, pause = halves(keys)[0], time.monotonic(), WAIT_SECONDS[0]
        before: set[str] = set()
        while True:
            others = [other for other in self.others() if not other.waits]
            here = {other.name for other in others if np.isin(high, other.rows).any()}
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

"""Rows on their way to a shelf, which wait to be written together."""

from __future__ import annotations

import time

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.shards import Shelf


class Filling:
    """Takes what is computed, and writes it into shards of so many rows, or of what came in so many seconds.

    Parameters
    ----------
    shelf : Shelf
    keys : ndarray of S16
        Of all rows.
    wanted : ndarray, int64
        Positions of those that the shelf lacks; others are passed over.
    rows, seconds
        What waits at most.
    """

    def __init__(self, shelf: Shelf, keys: Keys, wanted: Ints, rows: int, seconds: float) -> None:
        self.shelf, self.keys, self.rows, self.seconds = shelf, keys, rows, seconds
        self.lacking = np.zeros(len(keys), dtype=np.bool_)
        self.lacking[wanted] = True
        self._empty()

    def _empty(self) -> None:
        self.positions: list[Ints] = []
        self.values: list[Ragged] = []
        self.waiting, self.since = 0, time.monotonic()

    def put(self, positions: Ints, values: Ragged) -> None:
        """Take some rows."""
        here = self.lacking[positions]
        if not here.all():
            positions, values = positions[here], values.take(np.flatnonzero(here))
        self.lacking[positions] = False
        if len(positions):
            self.positions.append(positions)
            self.values.append(values)
            self.waiting += len(positions)
        if self.waiting >= self.rows or time.monotonic() - self.since > self.seconds:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self.waiting:
            self.shelf.write_shard(self.keys[np.concatenate(self.positions)], self.values)
        self._empty()

    def check(self) -> None:
        """Raise where a row that was wanted has not come."""
        if self.lacking.any():
            raise DataPrunerError(f"no value was computed for row {int(np.argmax(self.lacking))}")

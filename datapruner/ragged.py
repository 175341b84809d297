"""Rows of different lengths in one flat array: a number for every supervised token of every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths.

    Parameters
    ----------
    values : ndarray, shape (total,)
        The rows' entries, one row after the other.
    offsets : ndarray, int64, shape (n + 1,)
        Where each row starts; the last entry is ``total``.
    """

    values: NDArray[Any]
    offsets: Ints

    @classmethod
    def from_rows(cls, rows: Sequence[NDArray[Any]], dtype: Any = np.float32) -> Ragged:
        """Put rows together."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        values = np.concatenate([np.asarray(row, dtype=dtype) for row in rows] or [np.empty(0, dtype)])
        return cls(values, offsets_of(lengths))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Give one row's entries, a view."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Go through the rows."""
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> Ints:
        """Entries of each row; int64 (n,)."""
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Ragged:
        """Give some rows, in the order asked for; -1 stands for an empty row."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = np.where(rows < 0, 0, self.lengths[rows]) if len(self) else np.zeros(len(rows), np.int64)
        offsets = offsets_of(lengths)
        starts = self.offsets[np.where(rows < 0, 0, rows)]
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(starts, lengths) + within], offsets)

    def scatter(self, rows: Ints, n: int) -> Ragged:
        """Place the rows into a dataset of ``n`` rows, the others being empty."""
        of = np.full(n, -1, dtype=np.int64)
        of[rows] = np.arange(len(rows))
        return self.take(of)

    def rows(self) -> Ints:
        """Give the row that each entry belongs to; int64 (total,)."""
        return np.repeat(np.arange(len(self)), self.lengths)


def offsets_of(lengths: NDArray[Any]) -> Ints:
    """Turn lengths into offsets; int64 (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets

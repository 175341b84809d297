"""Rows of one template: which of them share more than it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.grams import ranges
from datapruner.files.spill import Spill


@dataclass(frozen=True)
class Crowd:
    """Which rows share a rare shingle early enough: prefix and position filter over crowded rows.

    Let a row's shingles be sorted by how many rows have them, the rarest first, and let the first one that
    x and y share stand at place p in x and q in y. Then J(x, y) >= t needs |x| - p and |y| - q to be at least
    t / (1 + t) (|x| + |y|), that is |y| - (1 + t) q >= t |x| and the reverse; so p <= |x| - t |x|. Rows that
    share a template and nothing rarer meet only if the template alone makes them duplicates.

    Parameters
    ----------
    begin
        int64 [n + 1]: where each row's entries start; an entry is a shingle of a row's prefix that
        another row has too.
    first, stop
        int64 [entries]: the postings that an entry reads.
    owner
        int64 [entries]: rows by shingle, those with the largest |y| - (1 + t) q first.
    work
        int64 [n]: postings that :meth:`candidates` reads for each row.
    """

    begin: Ints
    first: Ints
    stop: Ints
    owner: Ints
    work: Ints

    @classmethod
    def build(cls, hashes: Spill, starts: Ints, rows: Ints, threshold: float) -> Crowd:
        """Index the prefixes of ``rows``."""
        sizes = starts[rows + 1] - starts[rows]
        _, inverse, frequency = np.unique(
            hashes.take(starts[rows], sizes), return_inverse=True, return_counts=True
        )
        row = np.repeat(np.arange(rows.size), sizes)
        token = inverse[np.lexsort((inverse, frequency[inverse], row))]
        del inverse
        place = ranges(np.zeros(rows.size, dtype=np.int64), sizes)
        # A margin for rounding lengthens a prefix now and then, and never shortens it.
        used = (place <= (sizes * (1 - threshold) + 1e-6)[row]) & (frequency[token] > 1)
        token, row, place = token[used], row[used], place[used]
        # Whole numbers, rounded to the safe side, so that one sorted key holds shingle and reach.
        reach = np.floor(sizes[row] - (1 + threshold) * place).astype(np.int64) + 1
        needed = np.floor(threshold * sizes).astype(np.int64)[row]
        span = int(sizes.max(initial=0)) + 2
        key = (token + 1) * span - reach
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.searchsorted(key, token * span)
        stop = np.searchsorted(key, (token + 1) * span - needed, side="right")
        begin = np.zeros(starts.size, dtype=np.int64)
        begin[rows + 1] = np.bincount(row, minlength=rows.size)
        work = np.zeros(starts.size - 1, dtype=np.int64)
        work[rows] = np.bincount(row, weights=np.maximum(stop - first, 0), minlength=rows.size)
        return cls(np.cumsum(begin), first, np.maximum(stop, first), rows[row[order]], work)

    def candidates(self, i: int, kept: Flags) -> Ints:
        """Return the kept rows that share an early shingle with row ``i``; ascending."""
        mine = slice(self.begin[i], self.begin[i + 1])
        first = self.first[mine]
        others = self.owner[ranges(first, self.stop[mine] - first)]
        return np.unique(others[kept[others]])

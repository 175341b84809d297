"""Rows of one template: which of them share more than it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.grams import ranges
from datapruner.files.spill import BLOCK, IN_MEMORY_BYTES, Spill
from datapruner.ragged import offsets_of

PARTS = 64
"""Parts by their first bits in which shingles are counted, one after the other."""


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
        int32 [entries]: rows by shingle, those with the largest |y| - (1 + t) q first.
    work
        int64 [n]: postings that :meth:`candidates` reads for each row.
    """

    begin: Ints
    first: Ints
    stop: Ints
    owner: NDArray[np.int32]
    work: Ints

    @classmethod
    def build(cls, hashes: Spill, starts: Ints, rows: Ints, threshold: float) -> Crowd:
        """Index the prefixes of ``rows``; what is held meanwhile grows with what they share, not with what they say."""
        sizes = starts[rows + 1] - starts[rows]
        parts = _parts(sizes)
        shared = _shared(hashes.take(starts[rows[part]], sizes[part]) for part in parts)
        span = int(sizes.max(initial=0)) + 2
        keys, owners = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for part in parts:
            own = hashes.take(starts[rows[part]], sizes[part])
            key, row = _prefixes(own, sizes[part], *shared, threshold, span)
            keys.append(key)
            owners.append((row + part.start).astype(np.int32))
        key, row = np.concatenate(keys), np.concatenate(owners)
        del keys, owners, shared
        order = np.argsort(key, kind="stable")
        postings = key[order]
        owner = rows[row[order]].astype(np.int32)
        del order
        needed = np.floor(threshold * sizes).astype(np.int64)
        first, stop = np.empty(key.size, np.int64), np.empty(key.size, np.int64)
        for start in range(0, key.size, BLOCK):
            here = slice(start, start + BLOCK)
            token = (key[here] - 1) // span
            first[here] = np.searchsorted(postings, token * span)
            stop[here] = np.searchsorted(postings, (token + 1) * span - needed[row[here]], side="right")
        np.maximum(stop, first, out=stop)
        held = np.zeros(starts.size - 1, dtype=np.int64)
        held[rows] = np.bincount(row, minlength=rows.size)
        work = np.zeros(starts.size - 1, dtype=np.int64)
        work[rows] = np.bincount(row, weights=stop - first, minlength=rows.size)
        return cls(offsets_of(held), first, stop, owner, work)

    def candidates(self, i: int, kept: Flags) -> Ints:
        """Return the kept rows that share an early shingle with row ``i``; ascending."""
        mine = slice(self.begin[i], self.begin[i + 1])
        first = self.first[mine]
        others = self.owner[ranges(first, self.stop[mine] - first)]
        return np.unique(others[kept[others]]).astype(np.int64)


def _parts(sizes: Ints) -> list[slice]:
    """Cut rows into parts of some millions of shingles."""
    cuts = np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // BLOCK)) + 1
    edges = [0, *cuts.tolist(), sizes.size]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _shared(blocks: Iterable[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], Ints]:
    """Give the shingles that two rows or more have, ascending, and how many have each; one that none has, if none."""
    bounds = (np.arange(1, PARTS) * (2**64 // PARTS)).astype(np.uint64)
    parts = [Spill(np.uint64, IN_MEMORY_BYTES // PARTS) for _ in range(PARTS)]
    for block in blocks:
        ascending = np.sort(block)
        for part, some in zip(parts, np.split(ascending, np.searchsorted(ascending, bounds)), strict=True):
            part.append(some)
    found, times = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    while parts:
        own, rows = np.unique(parts.pop(0)[:], return_counts=True)
        found.append(own[rows > 1])
        times.append(rows[rows > 1])
    shared = np.concatenate(found), np.concatenate(times)
    return shared if shared[0].size else (np.zeros(1, np.uint64), np.ones(1, np.int64))


def _prefixes(
    hashes: NDArray[np.uint64],
    sizes: Ints,
    shared: NDArray[np.uint64],
    times: Ints,
    threshold: float,
    span: int,
) -> tuple[Ints, Ints]:
    """Give the entries of some rows' prefixes: a key that holds shingle and reach, and whose each is."""
    token = np.minimum(np.searchsorted(shared, hashes), shared.size - 1)
    frequency = np.where(shared[token] == hashes, times[token], 1)
    row = np.repeat(np.arange(sizes.size), sizes)
    order = np.lexsort((hashes, frequency, row))
    place = ranges(np.zeros(sizes.size, dtype=np.int64), sizes)
    # A margin for rounding lengthens a prefix now and then, and never shortens it.
    used = (place <= (sizes * (1 - threshold) + 1e-6)[row]) & (frequency[order] > 1)
    token, row, place = token[order[used]], row[used], place[used]
    # Whole numbers, rounded to the safe side, so that one sorted key holds shingle and reach.
    reach = np.floor(sizes[row] - (1 + threshold) * place).astype(np.int64) + 1
    return (token + 1) * span - reach, row

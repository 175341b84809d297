"""MinHash signatures in bands: which rows may be near-duplicates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.grams import MULTIPLIER
from datapruner.files.spill import Spill
from datapruner.ragged import offsets_of

BAND_RECALL = 0.995
"""Probability that the bands find a pair lying exactly at the threshold; above it, it only rises."""


def bands_for(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return (bands, values a band): the most selective pair that still finds the threshold."""
    for values in range(num_perm, 1, -1):
        bands = num_perm // values
        if 1 - (1 - threshold**values) ** bands >= BAND_RECALL:
            return bands, values
    return num_perm, 1


def permutations_of(num_perm: int, seed: int) -> NDArray[np.uint32]:
    """Return datasketch's permutations a * h + b modulo 2^32: uint32 [2, num_perm]."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=num_perm, seed=seed, scheme="affine32")
    return np.asarray(sketch.permutations, dtype=np.uint32)


def signatures(
    hashes: NDArray[np.uint64], counts: Ints, permutations: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """MinHash of every row with at least one shingle: uint32 [rows with shingles, permutations]."""
    # datasketch mixes a 32-bit hash with Murmur's finalizer first; the upper half of ours is that hash.
    mixed = (hashes >> np.uint64(32)).astype(np.uint32)
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(multiplier)
    mixed ^= mixed >> np.uint32(16)
    filled = counts[counts > 0]
    starts = np.cumsum(filled) - filled
    signatures = np.empty((filled.size, permutations.shape[1]), dtype=np.uint32)
    # One permutation over all rows of the block at a time stays in cache.
    for k, (a, b) in enumerate(permutations.T):
        signatures[:, k] = np.minimum.reduceat(mixed * a + b, starts)
    return signatures


def band_keys(
    hashes: NDArray[np.uint64],
    counts: Ints,
    permutations: NDArray[np.uint32],
    bands: int,
) -> NDArray[np.uint64]:
    """Fold each band of the signatures to one key: uint64 [rows, bands]; zeros for a row without shingles."""
    keys = np.zeros((counts.size, bands), dtype=np.uint64)
    if hashes.size:
        found = signatures(hashes, counts, permutations).astype(np.uint64)
        folded = np.ones((found.shape[0], bands), dtype=np.uint64)
        for value in np.moveaxis(found.reshape(found.shape[0], bands, -1), 2, 0):
            folded = (folded ^ (folded >> np.uint64(29))) * MULTIPLIER + value
        keys[counts > 0] = folded
    return keys


class Buckets(NamedTuple):
    """Which buckets of two or more rows each row is in; most rows are in none.

    Attributes
    ----------
    begin : ndarray, int64, shape (m + 1,)
        Row i's are ``numbers[begin[i] : begin[i + 1]]``.
    numbers : ndarray, int32
    sizes : ndarray, int64
        Rows of every bucket.
    """

    begin: Ints
    numbers: NDArray[np.int32]
    sizes: Ints

    def rows_in(self, some: Flags) -> Flags:
        """Mark the rows that are in any of the marked buckets; bool (m,)."""
        marked = np.zeros(self.begin.size - 1, np.bool_)
        places = np.flatnonzero(some[self.numbers])
        marked[np.searchsorted(self.begin, places, side="right") - 1] = True
        return marked


def shared_buckets(keys: Iterable[NDArray[np.uint64]], filled: Flags) -> Buckets:
    """Find the rows that share a key, band by band.

    Parameters
    ----------
    keys : iterable of ndarray, uint64, shape (m,)
        Every row's key, of one band after another.
    filled : ndarray, bool, shape (m,)
        Rows that have shingles.
    """
    members = np.flatnonzero(filled).astype(np.int32)
    rows, sizes = Spill(np.int32), [np.empty(0, np.int64)]
    held = np.zeros(filled.size, np.int64)
    for band in keys:
        own = band[members]
        order = np.argsort(own, kind="stable")
        own = own[order]
        begin = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]])) if own.size else sizes[0]
        count = np.diff(np.append(begin, own.size))
        shared = count > 1
        found = members[order[np.repeat(shared, count)]]
        held[found] += 1  # a row is in one bucket of a band
        rows.append(found)
        sizes.append(count[shared])
    begins, size = offsets_of(held), np.concatenate(sizes)
    numbers, free = np.empty(int(begins[-1]), np.int32), begins[:-1].copy()
    used = done = 0
    for count in sizes:
        found = rows[done : done + int(count.sum())]
        numbers[free[found]] = np.repeat(np.arange(used, used + count.size), count)
        free[found] += 1
        used, done = used + count.size, done + found.size
    return Buckets(begins, numbers, size)

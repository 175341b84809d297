"""Which rows of a large set a page shows: a stratified sample that is the same every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datapruner.selection.allocation import allocate

Ints = NDArray[np.int64]

FLOOR = 20
"""Rows that a stratum shows at least, where there is room for that."""


def stratified(strata: Ints, count: int, always: Ints | None = None) -> Ints:
    """Choose rows in proportion to their strata, with a floor for small ones.

    Parameters
    ----------
    strata : ndarray, int64, shape (n,)
        Number of each row's stratum, from 0.
    count : int
        Rows to choose; all where there are no more.
    always : ndarray, int64, optional
        Rows that are chosen whatever their stratum, at most ``count``; the others are drawn from the rest.

    Returns
    -------
    ndarray, int64
        Positions, ascending. Inside a stratum a row's place in the draw is a hash of its position, so that no
        global state, and no other row, moves it.
    """
    n = len(strata)
    if n <= count:
        return np.arange(n, dtype=np.int64)
    chosen = np.zeros(n, dtype=np.bool_)
    if always is not None:
        chosen[always] = True
    left = count - int(chosen.sum())
    rows = np.flatnonzero(~chosen)
    sizes = np.bincount(strata[rows]).astype(np.int64)
    counts = allocate(sizes, sizes, left, floors(sizes, left), "proportional")
    order = rows[np.lexsort((scrambled(rows), strata[rows]))]
    edges = np.concatenate([[0], np.cumsum(sizes)])
    place = np.arange(len(order)) - edges[strata[order]]
    chosen[order[place < counts[strata[order]]]] = True
    return np.flatnonzero(chosen)


def floors(sizes: Ints, count: int) -> Ints:
    """Give every stratum the same least count, as large as half of the sample allows; int64 (k,)."""
    for floor in range(FLOOR, 0, -1):
        least = np.minimum(sizes, floor)
        if 2 * int(least.sum()) <= count:
            return least
    return np.zeros_like(sizes)


def scrambled(rows: Ints) -> NDArray[np.uint64]:
    """Hash positions (splitmix64), so that ascending order of the hashes is a random order of the rows."""
    x = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

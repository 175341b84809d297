"""Which rows of a large set a page shows: a stratified sample that is the same every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.selection.allocation import allocate, allocate_exactly

FLOOR = 20
"""Rows that a stratum shows at least, where there is room for that."""


def stratified(fates: Ints, groups: Ints, count: int, always: Ints | None = None) -> Ints:
    """Choose rows in proportion to their fates, and inside a fate to their groups, with a floor for small ones.

    Parameters
    ----------
    fates : ndarray, int64, shape (n,)
        Number of what became of each row, from 0; few.
    groups : ndarray, int64, shape (n,)
        Number of each row's group, from 0; as many as there are rows, perhaps.
    count : int
        Rows to choose; all where there are no more.
    always : ndarray, int64, optional
        Rows that are chosen whatever their stratum, at most ``count``; the others are drawn from the rest.

    Returns
    -------
    ndarray, int64
        Positions, ascending. Inside a stratum a row's place in the draw is a hash of its position, so that no
        global state, and no other row, moves it. Of more groups than there is room for, those that show a row are
        drawn in the same way, in proportion to their sizes (systematic sampling in the order of hashes).
    """
    n = len(fates)
    if n <= count:
        return np.arange(n, dtype=np.int64)
    chosen = np.zeros(n, dtype=np.bool_)
    if always is not None:
        chosen[always] = True
    left = count - int(chosen.sum())
    rows = np.flatnonzero(~chosen)
    sizes = np.bincount(fates[rows]).astype(np.int64)
    shares = allocate(sizes, sizes, left, floors(sizes, left), "proportional")
    for fate in np.flatnonzero(shares).tolist():
        inside = rows[fates[rows] == fate]
        chosen[_of_every_group(inside, groups[inside], int(shares[fate]))] = True
    return np.flatnonzero(chosen)


def _of_every_group(rows: Ints, groups: Ints, count: int) -> Ints:
    """Choose ``count`` of these rows, in proportion to their groups."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    # In the order of hashes, so that the draw does not follow a period of the data.
    turn = np.argsort(scrambled(np.arange(len(sizes))))
    places, sizes = np.argsort(turn)[numbers], sizes[turn]
    shares, unit = allocate_exactly(sizes, sizes, count, floors(sizes, count), "proportional")
    # Each group's count is its share rounded down or up, their sum is exact, and no group is too small to be met.
    ends = ((2 * np.cumsum(shares) + unit) // (2 * unit)).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    order = np.lexsort((scrambled(rows), places))
    start = np.cumsum(sizes) - sizes
    drawn = np.arange(len(rows)) - start[places[order]] < counts[places[order]]
    chosen: Ints = rows[order[drawn]]
    return chosen


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

"""How diverse what a scorer keeps is, and how near it comes to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.geometry.blocks import FloatBlock, Matrix, RowView, gather, iter_blocks, normalise_rows
from datapruner.geometry.neighbours import distinct_rows, nearest_neighbours
from datapruner.signals import TARGET, Signals

NEIGHBOURS = 10
DISTANCE_POWER, DENSITY_POWER = 1.0, 0.5
"""The paper's, by which its figures were made."""
LEAST = 1e-9
"""Added to a mean distance: the neighbours of a row may lie where it does."""
JUDGED, AMONG = 1_000, 20_000
"""Rows of a selection whose novelty is computed, and rows that they are compared with, at most: seeded samples."""


class Diversity(NamedTuple):
    """What is kept, as a set.

    Attributes
    ----------
    novelsum : float
        See :func:`novelsum`.
    target_similarity : float, optional
        Mean over the target's rows of the cosine with the nearest kept row; None without a target.
    """

    novelsum: float
    target_similarity: float | None


class Pool:
    """The rows that all selections are taken from, and how crowded it is around those that are asked for.

    Parameters
    ----------
    signals : Signals
        With ``embedding``, and perhaps the target's.
    """

    def __init__(self, signals: Signals) -> None:
        self.vectors: Matrix = signals.matrix("embedding")
        self.target = signals.matrix(TARGET) if TARGET in signals.measured else None
        # The same order of all rows for every selection, so that samples of two overlap where these do.
        self.order: Ints = np.random.default_rng(signals.seed).permutation(signals.num_rows)
        self._distinct: tuple[Ints, Ints] | None = None
        self._density: dict[int, float] = {}

    def of(self, rows: Ints) -> Diversity:
        """Judge a selection: places among the signals' rows, int64, ascending."""
        drawn = rows[np.argsort(self.order[rows])]
        among = gather(self.vectors, np.sort(drawn[:AMONG]))
        normalise_rows(among)
        judged = np.sort(drawn[:JUDGED])
        places = np.searchsorted(np.sort(drawn[:AMONG]), judged)
        return Diversity(
            novelsum(among, places, self.density(judged)),
            None if self.target is None else nearest_similarity(self.target, self.vectors, rows),
        )

    def density(self, rows: Ints) -> Floats:
        """Density of the distinct rows around some, each computed once; float64 (m,)."""
        new = np.array([row for row in rows.tolist() if row not in self._density], dtype=np.int64)
        if new.size:
            self._density |= dict(zip(new.tolist(), self._densities(new).tolist(), strict=True))
        return np.array([self._density[row] for row in rows.tolist()])

    def _densities(self, rows: Ints) -> Floats:
        if self._distinct is None:
            self._distinct = distinct_rows(self.vectors)
        first, number = self._distinct
        k = min(NEIGHBOURS, len(first) - 1)
        if k < 1:
            return np.ones(len(rows))
        # Itself is among the distinct rows, under the first of its number.
        base = self.vectors if len(first) == len(number) else RowView(self.vectors, first)
        found, distances = nearest_neighbours(gather(self.vectors, rows), base, k + 1)
        itself = found == number[rows][:, None]
        itself[~itself.any(axis=1), -1] = True
        others = distances[~itself].reshape(len(rows), k)
        # Squared distances of unit vectors, as the released code has them.
        return np.asarray((2.0 * others.mean(axis=1, dtype=np.float64) + LEAST) ** -DENSITY_POWER)


def novelsum(vectors: FloatBlock, places: Ints, density: Floats) -> float:
    """Mean novelty of rows: the weighted mean of a row's distances to all kept rows, times the density around it.

    *Published* (NovelSum, arXiv 2502.17184, as its released code computes it): the distance is 1 - cosine; kept rows
    are weighted by the inverse of their rank by nearness, the row itself being the first; the density is the inverse
    root of the mean squared distance to the 10 nearest other rows of the pool. *Ours*: of large selections a sample.

    Parameters
    ----------
    vectors : ndarray, float32, shape (n, d)
        The kept rows, at unit length.
    places : ndarray, int64, shape (m,)
        Those whose novelty is averaged.
    density : ndarray, float64, shape (m,)

    Returns
    -------
    float
        Larger is more diverse; it depends on the number of rows, so that selections of one size are compared.
        NaN of no rows.
    """
    if not len(places):
        return float("nan")
    weights = 1.0 / np.arange(1, len(vectors) + 1) ** DISTANCE_POWER
    weights /= weights.sum()
    step = max(1, (64 << 20) // (8 * len(vectors)))
    total = 0.0
    for start in range(0, len(places), step):
        part = slice(start, start + step)
        distances = 1.0 - (vectors[places[part]] @ vectors.T).astype(np.float64)
        distances.sort(axis=1)
        total += float((np.maximum(distances, 0.0) @ weights * density[part]).sum())
    return total / len(places)


def nearest_similarity(target: Matrix, vectors: Matrix, rows: Ints) -> float:
    """Mean over a target's rows of the cosine with the nearest of some rows; NaN of no rows."""
    if not len(rows):
        return float("nan")
    wanted = gather(target, np.arange(target.shape[0]))
    normalise_rows(wanted)
    best: NDArray[np.float32] = np.full(len(wanted), -1.0, dtype=np.float32)
    for _, _, block in iter_blocks(RowView(vectors, rows)):
        normalise_rows(block)
        np.maximum(best, (wanted @ block.T).max(axis=1), out=best)
    return float(best.mean(dtype=np.float64))


def diversities(
    signals: Signals, rows: Ints, kept: Sequence[Mapping[str, Ints]]
) -> list[dict[str, Diversity]]:
    """Judge all rows, under the name of none, and every scorer's selection, budget by budget.

    Parameters
    ----------
    signals : Signals
        Of the rows that cleaning left.
    rows : ndarray, int64
        Their source positions, ascending.
    kept : sequence of mapping
        For every budget: scorer's name -> source positions, ascending; rows that cleaning dropped do not count.

    Returns
    -------
    list of dict
        Empty dicts where rows have no vectors.
    """
    if "embedding" not in signals.measured:
        return [{} for _ in kept]
    pool = Pool(signals)

    def places(of: Ints) -> Ints:
        return np.flatnonzero(np.isin(rows, of, assume_unique=True))

    every = pool.of(np.arange(len(rows)))
    return [
        {"": every, **{name: pool.of(places(of)) for name, of in selections.items()}} for selections in kept
    ]

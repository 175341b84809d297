"""Going through rows, and dropping those that are like one that was kept."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.grams import ranges
from datapruner.cleaning.minhash import Buckets
from datapruner.cleaning.shingles import Rarity, Sets, closest

CHEAPER = 20
"""Postings of a rare shingle that are read in the time of one candidate's verification."""


class Found(NamedTuple):
    """Rows that were not kept, the kept row that each is most like, and their Jaccard similarities."""

    rows: Ints
    others: Ints
    measures: Floats


@dataclass(frozen=True)
class NearSearch:
    """What is known of the rows, and which of them were kept so far.

    Attributes
    ----------
    sets : Sets
        Every row's shingles.
    whole : Sets, optional
        The same of the whole rows, where something was left out of ``sets``.
    threshold : float
        Jaccard similarity from which two rows are alike.
    buckets : Buckets
        Rows that share one are compared.
    large : ndarray, bool
        Of every bucket: whether it is a crowd, compared by rare shingles.
    in_crowd : ndarray, bool, shape (m,)
        The rows in such buckets.
    crowd : Crowd, optional
        Their rare shingles.
    safe : ndarray, bool, shape (m,)
        Rows that are always kept.
    nested, counted : ndarray, int64, shape (m,)
        Rows of other numbers are not alike: how lines are nested, where all shingles are the same, and numbers.
    """

    sets: Sets
    whole: Sets | None
    threshold: float
    buckets: Buckets
    large: Flags
    in_crowd: Flags
    crowd: Crowd | None
    safe: Flags
    nested: Ints
    counted: Ints
    kept: Flags = field(init=False)
    held: NDArray[np.int32] = field(init=False)
    first: Ints = field(init=False)
    used: Ints = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no row kept: every bucket has room for all of its rows, of which ``used`` are there."""
        sizes = self.buckets.sizes
        for name, empty in {
            "kept": np.zeros(len(self.safe), np.bool_),
            "held": np.empty(self.buckets.numbers.size, np.int32),
            "first": np.cumsum(sizes) - sizes,
            "used": np.zeros_like(sizes),
        }.items():
            object.__setattr__(self, name, empty)

    def visit(self, order: Ints, rarity: Rarity | None = None, *, keeping: bool = True) -> Found:
        """Go through some rows; those that are like a kept one, by what few rows have too, are not kept.

        Parameters
        ----------
        order : ndarray, int64
            The rows, each of which is kept once at most.
        rarity : Rarity, optional
        keeping : bool
            A row that is like none is one that later ones are held against.
        """
        rows, others, measures = array("q"), array("q"), array("d")
        begin, numbers = self.buckets.begin, self.buckets.numbers
        alone = begin[order] == begin[order + 1]
        if keeping:
            self.kept[order[alone]] = True
        for i in map(int, order[~alone]):
            mine = numbers[begin[i] : begin[i + 1]]
            candidates = np.empty(0, np.int64) if self.safe[i] else self._candidates(i, mine)
            if candidates.size:
                other, jaccard = closest(
                    i, candidates, self.sets, self.threshold, self.nested, self.whole, rarity
                )
                if jaccard >= self.threshold:
                    rows.append(i)
                    others.append(other)
                    measures.append(jaccard)
                    continue
            if not keeping:
                continue
            self.kept[i] = True
            self.held[self.first[mine] + self.used[mine]] = i
            self.used[mine] += 1
        return Found(np.array(rows, np.int64), np.array(others, np.int64), np.array(measures, np.float64))

    def _candidates(self, i: int, mine: NDArray[np.int32]) -> Ints:
        """Give the kept rows that row ``i``, which is in these buckets, may be like; ascending."""
        crowd, used = self.crowd, self.used[mine]
        if crowd is not None and self.in_crowd[i] and crowd.work[i] < CHEAPER * used.sum():
            # Small buckets still hold the partners outside the crowd.
            found = self._held_in(mine[~self.large[mine]])
            found = np.union1d(found[~self.in_crowd[found]], crowd.candidates(i, self.kept))
        else:
            found = self._held_in(mine)
        return np.asarray(found[self.counted[found] == self.counted[i]])

    def _held_in(self, buckets: NDArray[np.int32]) -> Ints:
        """Give the kept rows of some buckets; ascending."""
        return np.unique(self.held[ranges(self.first[buckets], self.used[buckets])]).astype(np.int64)

"""Going through rows, and dropping those that are like one that was kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.minhash import Buckets
from datapruner.cleaning.shingles import Rarity, Sets, closest

CHEAPER = 20
"""Postings of a rare shingle that are read in the time of one candidate's verification."""


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
    kept_in: dict[int, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with no row kept."""
        object.__setattr__(self, "kept", np.zeros(len(self.safe), dtype=np.bool_))

    def visit(
        self, order: Ints, rarity: Rarity | None = None, *, keeping: bool = True
    ) -> list[tuple[int, int, float]]:
        """Go through some rows; those that are like a kept one, by what few rows have too, are not kept.

        Parameters
        ----------
        order : ndarray, int64
            The rows.
        rarity : Rarity, optional
        keeping : bool
            A row that is like none is one that later ones are held against.

        Returns
        -------
        list of tuple
            (row, kept row that it is most like, Jaccard similarity).
        """
        dropped: list[tuple[int, int, float]] = []
        begin, numbers = self.buckets.begin, self.buckets.numbers
        alone = begin[order] == begin[order + 1]
        if keeping:
            self.kept[order[alone]] = True
        for i in order[~alone].tolist():
            mine: list[int] = numbers[begin[i] : begin[i + 1]].tolist()
            candidates = np.empty(0, np.int64) if self.safe[i] else self._candidates(i, mine)
            if candidates.size:
                other, jaccard = closest(
                    i, candidates, self.sets, self.threshold, self.nested, self.whole, rarity
                )
                if jaccard >= self.threshold:
                    dropped.append((i, other, jaccard))
                    continue
            if not keeping:
                continue
            self.kept[i] = True
            for bucket in mine:
                self.kept_in.setdefault(bucket, []).append(i)
        return dropped

    def _candidates(self, i: int, mine: list[int]) -> Ints:
        """Give the kept rows that row ``i``, which is in these buckets, may be like; ascending."""
        groups = [self.kept_in[bucket] for bucket in mine if bucket in self.kept_in]
        crowd = self.crowd
        if crowd is not None and self.in_crowd[i] and crowd.work[i] < CHEAPER * sum(map(len, groups)):
            # Small buckets still hold the partners outside the crowd.
            groups = [self.kept_in[b] for b in mine if b in self.kept_in and not self.large[b]]
            found = {j for group in groups for j in group if not self.in_crowd[j]}
            found.update(crowd.candidates(i, self.kept))
        else:
            found = set().union(*groups)
        candidates = np.array(sorted(found), dtype=np.int64)
        return np.asarray(candidates[self.counted[candidates] == self.counted[i]])

"""Rows as sets of shingles, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.cleaning.grams import hashed_ngrams
from datapruner.cleaning.rows import text_blocks
from datapruner.files.spill import Spill
from datapruner.words import words_of


class Sets(NamedTuple):
    """The shingles of all rows, ascending inside a row, and where each row starts."""

    hashes: Spill
    starts: Ints

    @classmethod
    def read(cls, texts: Iterable[str], alive: Ints, ngram: int) -> Sets:
        """Cut texts into shingles."""
        hashes, lengths = Spill(np.uint64), [np.empty(0, np.int64)]
        for block, _ in text_blocks(texts, alive):
            found, counts = hashed_ngrams([words_of(text) for text in block], ngram)
            hashes.append(found)
            lengths.append(counts)
        return cls(hashes, np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))

    def similarity(self, i: int, candidates: Ints) -> Floats:
        """Jaccard similarity of row ``i`` to each candidate, all of which have shingles."""
        mine = self.hashes[self.starts[i] : self.starts[i + 1]]
        sizes = self.starts[candidates + 1] - self.starts[candidates]
        theirs = self.hashes.take(self.starts[candidates], sizes)
        where = np.minimum(np.searchsorted(mine, theirs), mine.size - 1)
        shared = np.add.reduceat((mine[where] == theirs).astype(np.int64), np.cumsum(sizes) - sizes)
        return np.asarray(shared / (sizes + mine.size - shared))


class Rarity:
    """Whether two rows are alike when every shingle counts log(rows / rows that have it).

    Two requests under one long description share most shingles, as hundreds of rows do; two copies of a text, edited
    in places, share those that nobody else has. The weights are relative: exact copies are alike however many there
    are.

    Parameters
    ----------
    sets : Sets
        Of all rows.
    least : float
        Weighted Jaccard similarity from which two rows are alike.
    asked : ndarray, int64
        The rows that are asked for; only of their shingles it is known how many rows have them.
    """

    def __init__(self, sets: Sets, least: float, asked: Ints) -> None:
        self.sets, self.least, self.asked = sets, least, asked

    @cached_property
    def _held(self) -> tuple[NDArray[np.uint64], Ints]:
        """The shingles of the rows that are asked for, and of how many of all rows each is."""
        sets, rows = self.sets, self.asked
        own = np.unique(sets.hashes.take(sets.starts[rows], sets.starts[rows + 1] - sets.starts[rows]))
        held = np.zeros(own.size, np.int64)
        for block in sets.hashes.blocks() if own.size else ():
            place = np.minimum(np.searchsorted(own, block), own.size - 1)
            held += np.bincount(place[own[place] == block], minlength=own.size)
        return own, held

    def _weights(self, hashes: NDArray[np.uint64]) -> Floats:
        own, times = self._held
        held = times[np.searchsorted(own, hashes)]
        return np.asarray(np.log((len(self.sets.starts) - 1) / held))

    def holds(self, i: int, candidates: Ints) -> Flags:
        """Say of each candidate whether row ``i`` is like it; so it is where all weights are 0."""
        hashes, starts = self.sets.hashes, self.sets.starts
        mine = hashes[starts[i] : starts[i + 1]]
        whole = self._weights(mine)
        out = np.ones(len(candidates))
        for place, candidate in enumerate(candidates.tolist()):
            theirs = hashes[starts[candidate] : starts[candidate + 1]]
            shared = whole[np.isin(mine, theirs, assume_unique=True)].sum()
            union = whole.sum() + self._weights(theirs).sum() - shared
            if union > 0:
                out[place] = shared / union
        return np.asarray(out >= self.least)


def closest(
    i: int,
    candidates: Ints,
    sets: Sets,
    threshold: float,
    nested: Ints,
    whole: Sets | None,
    rarity: Rarity | None,
) -> tuple[int, float]:
    """Return the candidate of highest exact Jaccard similarity to item ``i``, and that similarity.

    A candidate of the same shingles whose lines are nested otherwise is none, nor one that is less similar whole, nor
    one that is not alike by what few rows have.
    """
    size = sets.starts[i + 1] - sets.starts[i]
    sizes = sets.starts[candidates + 1] - sets.starts[candidates]
    # |A n B| <= min and |A u B| >= max, so sizes alone rule out many candidates; divided as the
    # similarity is, so that rounding cannot lose a pair that lies exactly at the threshold.
    candidates = candidates[np.minimum(sizes, size) / np.maximum(sizes, size) >= threshold]
    if not candidates.size:
        return -1, 0.0
    jaccard = sets.similarity(i, candidates)
    jaccard[(jaccard == 1) & (nested[candidates] != nested[i])] = 0
    if whole is not None and (alike := np.flatnonzero(jaccard >= threshold)).size:
        jaccard[alike[whole.similarity(i, candidates[alike]) < threshold]] = 0
    if rarity is not None and (alike := np.flatnonzero(jaccard >= threshold)).size:
        jaccard[alike[~rarity.holds(i, candidates[alike])]] = 0
    best = int(jaccard.argmax())
    return int(candidates[best]), float(jaccard[best])

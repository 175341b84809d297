"""The word n-grams of a test set, and which training rows hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.cleaning.grams import hashed_ngrams, ngrams, ranges
from datapruner.cleaning.rows import text_blocks
from datapruner.errors import DataPrunerError
from datapruner.words import bare_words


class NothingToCompareError(DataPrunerError):
    """No test row has the words to be compared by."""


@dataclass(frozen=True)
class GramIndex:
    """Inverted index of the test side: gram -> test rows, as sorted arrays.

    Parameters
    ----------
    lengths
        Gram lengths in use: ``ngram`` and those of the shorter test rows.
    grams
        uint64 [G], ascending.
    starts
        int64 [G + 1]: the test rows of gram g are ``owners[starts[g] : starts[g + 1]]``.
    owners
        int64 [postings].
    weights
        float64 [G]: 1 / f^2 for a gram of f test rows, less where it is a template's of the training rows.
    totals
        float64 [test rows]: summed weight of its grams, 0 for a row that is not compared.
    """

    lengths: tuple[int, ...]
    grams: NDArray[np.uint64]
    starts: Ints
    owners: Ints
    weights: Floats
    totals: Floats

    @classmethod
    def build(cls, texts: Iterable[str], ngram: int, min_words: int, common: int) -> GramIndex:
        """Index every distinct test row of at least ``min(min_words, ngram)`` words."""
        # Equal test rows would make their own grams look like a template: keep the first of each.
        first: dict[tuple[str, ...], int] = {}
        total = 0
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataPrunerError(f"Test row {row} holds {type(text).__name__} where a text is needed.")
            first.setdefault(tuple(bare_words(text)), row)
            total = row + 1
        by_length: dict[int, list[tuple[str, ...]]] = {}
        for words in first:
            if len(words) >= min(min_words, ngram):
                by_length.setdefault(min(len(words), ngram), []).append(words)
        if not by_length:
            raise NothingToCompareError(
                f"None of the {total} test rows has {min(min_words, ngram)} words or more, "
                "so there is nothing to compare the training rows with."
            )
        hashes, owners = [], []
        for length, group in by_length.items():
            grams, counts = hashed_ngrams(group, length)
            hashes.append(grams)
            owners.append(np.repeat(np.array([first[words] for words in group], dtype=np.int64), counts))
        gram, owner = np.concatenate(hashes), np.concatenate(owners)
        _, inverse, frequency = np.unique(gram, return_inverse=True, return_counts=True)
        special = frequency[inverse] <= common
        # A row made of template alone keeps all its grams.
        special |= (np.bincount(owner[special], minlength=total) == 0)[owner]
        gram, owner, weight = gram[special], owner[special], 1.0 / frequency[inverse][special] ** 2
        order = np.lexsort((owner, gram))
        unique, starts = np.unique(gram[order], return_index=True)
        return cls(
            lengths=tuple(sorted(by_length)),
            grams=unique,
            starts=np.append(starts, gram.size).astype(np.int64),
            owners=owner[order],
            weights=weight[order][starts],
            totals=np.bincount(owner, weights=weight, minlength=total).astype(np.float64),
        )

    @cached_property
    def _sieve(self) -> Flags:
        """Mark the last bits of every gram's hash: nearly all others are told from them without a search."""
        marks = np.zeros(1 << min(max(16, int(16 * self.grams.size).bit_length()), 24), dtype=np.bool_)
        marks[self.grams & np.uint64(marks.size - 1)] = True
        return marks

    def hits(self, texts: Iterable[str]) -> tuple[Ints, Ints]:
        """Return (text, place of the gram) of every distinct gram of a text that is a test row's, ascending."""
        words = [bare_words(text) for text in texts]
        sieve = self._sieve
        keys: list[Ints] = []
        for length in self.lengths:
            hashes, _, item = ngrams(words, length)
            maybe = np.flatnonzero(sieve[hashes & np.uint64(sieve.size - 1)])
            hashes, item = hashes[maybe], item[maybe]
            slot = np.minimum(np.searchsorted(self.grams, hashes), self.grams.size - 1)
            hit = self.grams[slot] == hashes
            keys.append(item[hit] * self.grams.size + slot[hit])
        item, slot = np.divmod(np.unique(np.concatenate(keys)), self.grams.size)
        return item, slot

    def lighter(self, rows: Floats, usual: int) -> GramIndex:
        """Return the same with less weight for grams that more than so many training rows hold."""
        weights = self.weights * np.minimum(1, usual / np.maximum(rows, 1)) ** 2
        owned = np.repeat(weights, np.diff(self.starts))
        totals = np.bincount(self.owners, weights=owned, minlength=self.totals.size).astype(np.float64)
        return replace(self, weights=weights, totals=totals)

    def best(self, item: Ints, slot: Ints) -> tuple[Ints, Ints, Floats]:
        """Return (text, test row, share): the best test row of every text that hits any.

        Parameters
        ----------
        item, slot : ndarray, int64
            As of :meth:`hits`.
        """
        entry, postings = self._postings(slot)
        owner = self.owners[entry]
        key = np.repeat(item, postings) * self.totals.size + owner
        pairs, pair = np.unique(key, return_inverse=True)
        shared = np.bincount(pair, weights=np.repeat(self.weights[slot], postings), minlength=pairs.size)
        item, test = np.divmod(pairs, self.totals.size)
        measure = shared / self.totals[test]
        order = np.lexsort((test, -measure, item))
        item, test, measure = item[order], test[order], measure[order]
        head = np.ones(item.size, dtype=bool)
        head[1:] = item[1:] != item[:-1]
        return item[head], test[head], measure[head]

    def holders(self, item: Ints, slot: Ints, texts: Ints, tests: Ints) -> Floats:
        """Count, of each test row's grams, the texts among those that are compared with it that hold them.

        Parameters
        ----------
        item, slot : ndarray, int64
            As of :meth:`hits`.
        texts, tests : ndarray, int64, shape (m,)
            The test row that a text is compared with; each text at most once.

        Returns
        -------
        ndarray, float64, shape (postings,)
        """
        of = np.full(int(item.max(initial=-1)) + 1, -1)
        of[texts] = tests
        some = of[item] >= 0
        entry, postings = self._postings(slot[some])
        fits = self.owners[entry] == np.repeat(of[item[some]], postings)
        return np.bincount(entry[fits], minlength=self.owners.size).astype(np.float64)

    def _postings(self, slot: Ints) -> tuple[Ints, Ints]:
        """Expand hits to the test rows that own the gram: (place among ``owners``, how many of each hit)."""
        counts = self.starts[slot + 1] - self.starts[slot]
        return ranges(self.starts[slot], counts), counts


@dataclass
class Hits:
    """Which test grams each training row holds, block by block, as often as they are asked for.

    Parameters
    ----------
    index : GramIndex
    rows : ndarray, int64, ascending
        Of the training set.
    read : callable
        Rows -> their texts.
    held : int
        Hits that are held; of the rows beyond them the texts are read again each time.
    """

    index: GramIndex
    rows: Ints
    read: Callable[[Ints], Iterable[str]]
    held: int
    _blocks: list[tuple[Ints, NDArray[np.uint16], NDArray[np.uint32]]] = field(
        default_factory=list, init=False
    )
    _room: int = field(init=False)
    _is_read: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Nothing is held yet."""
        self._room = self.held

    def __iter__(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Give (rows, place among these, place of the gram) of every block."""
        for rows, of, place in self._blocks:
            yield rows, of.astype(np.int64), place.astype(np.int64)
        rest = self.rows[sum(len(rows) for rows, _, _ in self._blocks) :]
        if self._is_read and not rest.size:
            return
        for texts, rows in text_blocks(self.read(rest), rest):
            item, slot = self.index.hits(texts)
            if not self._is_read and item.size <= self._room:
                self._blocks.append((rows, item.astype(np.uint16), slot.astype(np.uint32)))
                self._room -= item.size
            else:  # those that are held are the first ones
                self._room = -1
            yield rows, item, slot
        self._is_read = True

    def counted(self) -> Floats:
        """Count the rows that hold each gram; float64 [G]."""
        count = np.zeros(self.index.grams.size)
        for _, _, slot in self:
            count += np.bincount(slot, minlength=count.size)
        return count

"""Hashes of runs of words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Spreads the bits of a hash."""


def ngrams(
    words: Sequence[Sequence[str]], n: int, *, short_rows: bool = False
) -> tuple[NDArray[np.uint64], Ints, Ints]:
    """Hash the word n-grams of every row as they stand.

    Parameters
    ----------
    words, n, short_rows
        As in :func:`hashed_ngrams`.

    Returns
    -------
    hashes
        uint64 [grams]
    begin
        int64 [grams]: the place of each one's first word among the words of all rows.
    owner
        int64 [grams]: its row.
    """
    from xxhash import xxh3_64_intdigest

    sizes = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    known = {
        word: xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        for word in set(chain.from_iterable(words))
    }
    flat = np.fromiter(
        map(known.__getitem__, chain.from_iterable(words)), dtype=np.uint64, count=int(sizes.sum())
    )
    row_of = np.repeat(np.arange(len(words)), sizes)
    end_of = np.cumsum(sizes)[row_of]
    position = np.arange(flat.size)
    whole = position + n <= end_of
    if short_rows:
        whole |= (sizes[row_of] < n) & (position == end_of - sizes[row_of])
    begin, end, owner = position[whole], end_of[whole], row_of[whole]
    # Mixing before each word makes order and length count; wraps modulo 2^64 by intention.
    grams = np.ones(begin.size, dtype=np.uint64)
    for offset in range(n):
        inside = begin + offset < end
        following = flat[np.minimum(begin + offset, flat.size - 1)] if flat.size else flat
        grams = np.where(inside, (grams ^ (grams >> np.uint64(29))) * MULTIPLIER + following, grams)
    return grams, begin, owner


def hashed_ngrams(
    words: Sequence[Sequence[str]], n: int, *, short_rows: bool = True
) -> tuple[NDArray[np.uint64], Ints]:
    """Hash the distinct word n-grams of every row.

    Parameters
    ----------
    words
        The words of each row.
    n
        Words an n-gram.
    short_rows
        Whether a row of fewer than ``n`` words counts as one gram; otherwise it has none.

    Returns
    -------
    hashes
        uint64 [sum of counts]: row after row, ascending inside a row.
    counts
        int64 [len(words)].
    """
    grams, _, owner = ngrams(words, n, short_rows=short_rows)
    order = np.lexsort((grams, owner))
    grams, owner = grams[order], owner[order]
    distinct = np.ones(grams.size, dtype=bool)
    distinct[1:] = (grams[1:] != grams[:-1]) | (owner[1:] != owner[:-1])
    return grams[distinct], np.bincount(owner[distinct], minlength=len(words)).astype(np.int64)


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return starts[0], starts[0] + 1, ... for every start, one range after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + lengths, lengths)

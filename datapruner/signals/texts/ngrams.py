"""Counting n-grams of words by the rows that hold them, one word longer at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.signals.texts.corpus import Corpus, blocks, distinct, runs

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Level(NamedTuple):
    """The frequent n-grams of one length, numbered: ``left << 32 | right``, their parts one word shorter; and rows."""

    keys: Ints
    rows: Ints


def count(corpus: Corpus, floor: int, longest: int, buckets: int | None) -> list[Level]:
    """Find the n-grams of at least ``floor`` rows, for every length; plainly without ``buckets``, which is equal."""
    levels = [frequent_words(corpus, floor)]
    grams = np.full(
        len(corpus.words) + 1, -1, dtype=np.int32
    )  # the last entry is what the boundaries' -1 reads
    grams[levels[0].keys] = np.arange(len(levels[0].keys))
    grams = grams[corpus.tokens]
    while len(levels) < longest and len(levels[-1].keys):
        likely = None if buckets is None else likely_grams(corpus, grams, floor, buckets)
        levels.append(frequent_grams(corpus, grams, floor, likely))
        for first, end in blocks(corpus):
            part = slice(corpus.starts[first], corpus.starts[end])
            grams[part] = find(levels[-1].keys, longer_grams(grams[part]))
    return levels


def frequent_words(corpus: Corpus, floor: int) -> Level:
    """Find the words of at least ``floor`` rows."""
    counts = np.zeros(len(corpus.words), dtype=np.int64)
    for first, end in blocks(corpus):
        words, rows = _there(corpus, corpus.tokens, first, end)
        found, times = runs(distinct(words * (end - first) + rows) // (end - first))
        counts[found] += times
    keys = np.flatnonzero(counts >= floor)
    return Level(keys, counts[keys])


def likely_grams(corpus: Corpus, grams: NDArray[np.int32], floor: int, buckets: int) -> Flags:
    """Mark the hashes of n-grams one word longer than ``grams`` that occur often enough: no other is frequent."""
    counts = np.zeros(buckets, dtype=np.int32)
    for first, end in blocks(corpus):
        np.add.at(counts, _bucket(_there(corpus, grams, first, end, longer=True)[0], buckets), 1)
    return counts >= floor


def frequent_grams(corpus: Corpus, grams: NDArray[np.int32], floor: int, likely: Flags | None) -> Level:
    """Find the n-grams one word longer than ``grams`` of at least ``floor`` rows."""
    parts, pending = [Level(np.empty(0, np.int64), np.empty(0, np.int64))], 0
    for first, end in blocks(corpus):
        keys, rows = _there(corpus, grams, first, end, longer=True)
        some = slice(None) if likely is None else likely[_bucket(keys, len(likely))]
        different, places = np.unique(keys[some], return_inverse=True)
        pairs = distinct(places * (end - first) + rows[some])
        parts.append(Level(different, runs(pairs // (end - first))[1]))
        pending += len(different)
        if pending > max(corpus.at_once, len(parts[0].keys)):
            parts, pending = [_merged(parts)], 0
    level = _merged(parts)
    return Level(level.keys[level.rows >= floor], level.rows[level.rows >= floor])


def _there(
    corpus: Corpus, grams: NDArray[np.int32], first: int, end: int, longer: bool = False
) -> tuple[Ints, Ints]:
    """Give the n-grams of some rows (or the keys of those one word longer), and their rows counted from ``first``."""
    starts = corpus.starts[first : end + 1]
    part = grams[starts[0] : starts[-1]]
    found = longer_grams(part) if longer else part.astype(np.int64)
    places = np.flatnonzero(found >= 0)
    return found[places], np.repeat(np.arange(end - first), np.diff(starts))[places]


def longer_grams(grams: NDArray[np.int32]) -> Ints:
    """Join each n-gram with the one that starts a word later; -1 where one of them is missing."""
    after = np.append(grams[1:], np.int32(-1))
    return np.where((grams < 0) | (after < 0), -1, grams.astype(np.int64) << 32 | after)


def find(keys: Ints, wanted: Ints) -> NDArray[np.int32]:
    """Look keys up in an ascending array; -1 where one is missing or -1 itself."""
    out = np.full(len(wanted), -1, dtype=np.int32)
    asked = np.flatnonzero(wanted >= 0)
    if len(keys) and len(asked):
        places = np.minimum(np.searchsorted(keys, wanted[asked]), len(keys) - 1)
        out[asked] = np.where(keys[places] == wanted[asked], places, -1)
    return out


def _bucket(keys: Ints, buckets: int) -> Ints:
    """Hash keys into [0, buckets)."""
    mixed = keys.astype(np.uint64) * _MULTIPLIER >> np.uint64(32)
    return (mixed % np.uint64(buckets)).astype(np.int64)


def _merged(parts: list[Level]) -> Level:
    """Add up counts of blocks."""
    keys, places = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    rows = np.bincount(places, np.concatenate([part.rows for part in parts]), minlength=len(keys))
    return Level(keys, rows.astype(np.int64))

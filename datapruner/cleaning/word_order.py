"""The order of a text's words against shuffles of the same words, by what stands beside what in the other texts.

*Ours*. A text's words are given; were their order noise, every other order would be as likely. So a text is compared
with itself: with its own words shuffled, under counts of neighbouring words that other texts have. Long words that are
rare are counted by their shape, so that a small set says something too. Where no other text holds a text's words, its
own order is worth no more than a shuffle, and says nothing: how well its words are known, and how much the best order
could be worth, is told beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.ragged import offsets_of

SHUFFLES = 8
FOLDS = 4
"""A text is judged by the counts of the other folds: its own order says nothing for itself."""
LONGEST = 128
"""Words of a text that are looked at, from its beginning: the first ones tell enough."""
FEWEST = 4
"""Words below which no order is better than another."""
AT_ONCE = 4096
"""Texts that are shuffled together."""
LEAST_BITS, MOST_BITS = 16, 24
"""Of the tables of counts: pairs are told by a hash."""
PRIOR = 2.0
"""Occurrences that the words' own frequency stands for."""
TRIED = 48
"""Words of a text of which every two are tried as neighbours, from its beginning."""
TRIED_AT_ONCE = 64
"""Texts whose words are."""
RISING = np.array([1, 1, 0, 0, 0, 0, 0])
"""Which of the :func:`features` may only speak for a text: its standings; the others say how much these mean."""
_FIRST, _LAST = np.uint64(1), np.uint64(2)
_ALONE = np.array([77], dtype=np.uint64)

_DIGITS = re.compile(r"\d+")
_OPENS, _CLOSES = "\"'([{<#-*", ".,;:!?\"')]}>"


class Orders(NamedTuple):
    """How a text's order stands to shuffles of its words.

    Attributes
    ----------
    own, shuffled : ndarray, float64, shape (n, 2)
        Standard deviations above the mean shuffle, by words and by their shapes: of the order that the text has, and of
        one more shuffle, compared with the same ones.
    possible : ndarray, float64, shape (n, 2)
        Standard deviations above the mean pair, if every word had the best of the others after it.
    known : ndarray, float64, shape (n, 2)
        Mean log(1 + n), with n how often other texts hold the word.
    words : ndarray, int64, shape (n,)
        How many were looked at.
    """

    own: Floats
    shuffled: Floats
    possible: Floats
    known: Floats
    words: Ints

    @property
    def told(self) -> Flags:
        """Texts of enough words."""
        return np.asarray(self.words >= FEWEST)


def word_orders(texts: Iterable[str], seed: int = 0) -> Orders:
    """Compare each text's order of words with shuffles of them.

    A text's words are what stands between blanks. Every two neighbours are worth log(p(b | a) / p(b)), with p(b | a)
    counted in the texts of other folds and drawn towards p(b); the ends of a text are neighbours too. A text's value is
    the sum, standardised by the mean of 7 shuffles and the variance of their neighbours.

    Parameters
    ----------
    texts : iterable of str
        Read once; their words' hashes are held, 16 bytes a word.
    seed : int

    Returns
    -------
    Orders
    """
    hashes, lengths = _hashed(texts)
    offsets = offsets_of(lengths)
    n = len(lengths)
    fold = np.random.default_rng(seed).integers(FOLDS, size=n)
    bits = int(np.clip(np.ceil(np.log2(8 * max(len(hashes), 1))), LEAST_BITS, MOST_BITS))
    own, shuffled, possible, known = (np.zeros((n, 2)) for _ in range(4))
    for kind in range(2):
        counts = _Counts(hashes[:, kind], offsets, fold, bits)
        rng = np.random.default_rng([seed, 1])  # the same shuffles for both
        for start in range(0, n, AT_ONCE):
            rows = slice(start, min(start + AT_ONCE, n))
            of = slice(int(offsets[rows.start]), int(offsets[rows.stop]))
            some = hashes[of, kind], np.diff(offsets[rows.start : rows.stop + 1]), fold[rows], counts
            own[rows, kind], shuffled[rows, kind] = _standing(*some, rng)
            possible[rows, kind], known[rows, kind] = _room(*some)
    return Orders(own, shuffled, possible, known, lengths)


def _standing(
    words: NDArray[np.uint64], lengths: Ints, fold: Ints, counts: _Counts, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Standardise the orders of some texts, and one shuffle of each."""
    n = len(lengths)
    row = np.repeat(np.arange(n), lengths)
    sums, squares = np.zeros((SHUFFLES + 1, n)), np.zeros(n)
    for number in range(SHUFFLES + 1):
        order = np.argsort(row + rng.random(len(row)) * 0.999) if number else np.arange(len(row))
        worth, of = counts.worth(words[order], lengths, fold)
        sums[number] = np.bincount(of, worth, minlength=n)
        if number > 1:
            squares += np.bincount(of, worth * worth, minlength=n)
    mean = sums[2:].mean(axis=0)
    pairs = lengths + 1
    variance = squares / (SHUFFLES - 1) / pairs - (mean / pairs) ** 2
    spread = np.sqrt(np.maximum(variance * pairs, 1e-9))
    return (sums[0] - mean) / spread, (sums[1] - mean) / spread


def _room(words: NDArray[np.uint64], lengths: Ints, fold: Ints, counts: _Counts) -> tuple[Floats, Floats]:
    """Tell how much the best order of some texts could be worth, and how well their words are known."""
    possible, known = np.zeros(len(lengths)), np.zeros(len(lengths))
    starts = np.cumsum(lengths) - lengths
    for start in range(0, len(lengths) if len(words) else 0, TRIED_AT_ONCE):
        texts = slice(start, start + TRIED_AT_ONCE)
        tried = np.minimum(lengths[texts], TRIED)
        place = np.arange(tried.max())
        held = words[np.minimum(starts[texts, None] + place, len(words) - 1)]
        there = place < tried[:, None]
        worth, often = counts.grid(held, fold[texts])
        # The mark of the beginning and that of the end stand among the words, and no word beside itself.
        both = np.pad(there, ((0, 0), (0, 1)), constant_values=True)
        tell = both[:, :, None] & both[:, None] & ~np.eye(len(place) + 1, dtype=np.bool_)
        pairs = np.maximum(tell.sum(axis=(1, 2)), 1)
        mean = (worth * tell).sum(axis=(1, 2)) / pairs
        spread = np.sqrt(np.maximum((worth * worth * tell).sum(axis=(1, 2)) / pairs - mean * mean, 1e-9))
        best = np.where(tell, worth, -np.inf).max(axis=2)
        above = np.where(both & (tried > 0)[:, None], best - mean[:, None], 0.0).sum(axis=1)
        possible[texts] = above / (spread * np.sqrt(tried + 1))
        known[texts] = (np.log1p(often) * there).sum(axis=1) / np.maximum(tried, 1)
    return possible, known


class _Counts:
    """How often words are neighbours, and are there at all, in all texts but those of a fold."""

    def __init__(self, words: NDArray[np.uint64], offsets: Ints, fold: Ints, bits: int) -> None:
        self.bits = bits
        lengths = np.diff(offsets)
        first, second, of = _neighbours(words, lengths)
        pair, single = self._key(first, second), self._key(words, _ALONE)
        # A text's first word has no word before it: counted by texts.
        self.pairs = self._elsewhere(pair, fold[of])
        self.words = self._elsewhere(single, np.repeat(fold, lengths))
        self.all_words = self.words.sum(axis=1)
        self.texts = len(fold) - np.bincount(fold, minlength=FOLDS)

    def worth(self, words: NDArray[np.uint64], lengths: Ints, fold: Ints) -> tuple[Floats, Ints]:
        """Give the worth of all neighbours, and the texts that they are of."""
        first, second, of = _neighbours(words, lengths)
        group = fold[of]
        together = self.pairs[group, self._key(first, second)]
        before = np.where(first == _FIRST, self.texts[group], self.words[group, self._key(first, _ALONE)])
        after = np.where(second == _LAST, self.texts[group], self.words[group, self._key(second, _ALONE)])
        return _worth(together, before, after, self.all_words[group]), of

    def grid(self, words: NDArray[np.uint64], fold: Ints) -> tuple[Floats, Floats]:
        """Give the worth of every two words (m, w) of a text, one before the other, and how often each is there.

        Returns
        -------
        worth : ndarray, float64, shape (m, w + 1, w + 1)
            The last row is of the mark before a text's first word, the last column of that after its last one.
        often : ndarray, float64, shape (m, w)
        """
        group = fold[:, None]
        often = self.words[group, self._key(words, _ALONE)].astype(np.float64)
        marked = np.concatenate([often, self.texts[group]], axis=1)
        first, second = (
            np.pad(words, ((0, 0), (0, 1)), constant_values=mark)[:, :, None] for mark in (_FIRST, _LAST)
        )
        together = self.pairs[group[:, :, None], self._key(first, second.swapaxes(1, 2))]
        total = self.all_words[group[:, :, None]]
        return _worth(together, marked[:, :, None], marked[:, None], total), often

    def _elsewhere(self, keys: Ints, fold: Ints) -> NDArray[np.int32]:
        size = 1 << self.bits
        inside = np.stack(
            [np.bincount(keys[fold == part], minlength=size).astype(np.int32) for part in range(FOLDS)]
        )
        return np.asarray(inside.sum(axis=0, dtype=np.int32) - inside)

    def _key(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Ints:
        mixed = first * np.uint64(0x9E3779B97F4A7C15) ^ (second + np.uint64(1)) * np.uint64(
            0xC2B2AE3D27D4EB4F
        )
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        return np.asarray(mixed >> np.uint64(64 - self.bits)).astype(np.int64)


def _worth(together: NDArray[Any], before: NDArray[Any], after: NDArray[Any], total: NDArray[Any]) -> Floats:
    """Give log(p(b | a) / p(b)) of pairs from counts: of both, of the first word, of the second, of all words."""
    common = (after + 0.5) / (total + 1)
    return np.asarray(np.log((together + PRIOR * common) / (before + PRIOR) / common))


def _neighbours(
    words: NDArray[np.uint64], lengths: Ints
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Ints]:
    """Give every word with the one after it, a text's ends with marks; and the text of each two."""
    some = np.flatnonzero(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths + (lengths > 0))
    starts = np.cumsum(lengths[some]) - lengths[some]
    first = np.insert(words, starts, _FIRST)
    second = np.insert(words, starts + lengths[some], _LAST)
    return first, second, row


def _hashed(texts: Iterable[str]) -> tuple[NDArray[np.uint64], Ints]:
    """Hash the words of every text, and their shapes; uint64 (words, 2)."""
    from xxhash import xxh3_64_intdigest

    known: dict[str, tuple[int, int]] = {}
    found: list[NDArray[np.uint64]] = [np.empty((0, 2), dtype=np.uint64)]
    lengths: list[int] = []
    for text in texts:
        words = [_DIGITS.sub("0", word) for word in text.split(None, LONGEST)[:LONGEST]]
        for word in words:
            if word not in known:
                known[word] = (
                    xxh3_64_intdigest(word.lower().encode("utf-8", "surrogatepass")),
                    xxh3_64_intdigest(shape_of(word).encode("utf-8", "surrogatepass")),
                )
        lengths.append(len(words))
        if words:
            found.append(np.array([known[word] for word in words], dtype=np.uint64))
    return np.concatenate(found), np.array(lengths, dtype=np.int64)


def shape_of(word: str) -> str:
    """Give what a rare word has in common with others: its case, its last letters, and the signs around it."""
    core = word.strip(_OPENS + _CLOSES)
    case = "0" if core[:1].isdigit() else "A" if len(core) > 1 and core.isupper() else "a"
    if case == "a" and core[:1].isupper():
        case = "Aa"
    opens = word[:1] if word[:1] in _OPENS else ""
    closes = word[-1:] if word[-1:] in _CLOSES else ""
    return f"{opens} {case} {core[-3:].lower() if len(core) > 4 else core.lower()} {closes}"


def features(orders: Orders, which: Sequence[bool] | Flags) -> tuple[Floats, Floats]:
    """Give what tells a text's own order from a shuffle; float64 (m, 7), :data:`RISING` says which way.

    Both standings, the logarithm of the length, what is possible, and how well its words are known.
    """
    rows = np.flatnonzero(which)
    length = np.log(np.maximum(orders.words[rows], 1))[:, None]
    room = np.concatenate([length, orders.possible[rows], orders.known[rows]], axis=1)
    own, shuffled = (np.concatenate([held[rows], room], axis=1) for held in (orders.own, orders.shuffled))
    return own, shuffled

"""Concepts of texts: what each row is about, by counting alone, without a tagger or any other model.

A concept is an n-gram of words between stop words and punctuation that several rows share, ranked by its C-value.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from datapruner.arrays import Flags, Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.stop_words import STOP_WORDS, bounds, closes, stands_alone
from datapruner.words import joined, spread

MAX_SHARE = 0.05
FEW_ROWS = 20
"""What more than this share of the rows hold, and more than so many rows, is no concept."""
REPEATED_SHARE = 0.003
REPEATED_WORDS = 3
"""A sentence of so many words that more than this share of the rows hold, and more than FEW_ROWS, is a template's."""

# Python's \w leaves out combining marks, of which the words of many scripts are full.
_LETTERS = r"[\w\p{M}]+"
_tokens = regex.compile(rf"c\+\+|[cf]#|{_LETTERS}(?:[-'’]{_LETTERS})*|[^\s\w\p{{M}}]+").findall
_ascii_tokens = re.compile(r"c\+\+|[cf]#|\w+(?:[-']\w+)*|[^\s\w]+", re.ASCII).findall
_sentences = re.compile(r"[.?!:]\s+|\n").split

_BLOCK = 1 << 20  # tokens that are looked at together
_BUCKETS = 1 << 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Concepts:
    """The concepts of every row.

    Parameters
    ----------
    ids : Ragged of int64
        Each row's concepts by number, the best C-value first, all different.
    names : ndarray of str, shape (k,)
        In lower case. The concept of the best C-value is number 0; equal ones are in the order of their names.
    c_values : ndarray, float64, shape (k,)
        In rows, times the logarithm of a number of words; above 0.
    rows : ndarray, int64, shape (k,)
        How many rows' text has the concept, whether or not it is among those that they list.
    """

    ids: Ragged
    names: NDArray[np.str_]
    c_values: NDArray[np.float64]
    rows: Ints


def extract_concepts(
    texts: Iterable[str],
    *,
    min_rows: int = 2,
    max_words: int = 3,
    per_row: int = 5,
    max_share: float = MAX_SHARE,
) -> Concepts:
    """Find what each text is about.

    *Published*: C-value(a) = log2(|a|) (f(a) - mean of f(b) over the longer candidates b that contain a), for a of |a|
    words and frequency f (Frantzi, Ananiadou & Mima 2000, "Automatic recognition of multi-word terms: the C-value/
    NC-value method"). *Ours*: log2(|a| + 1), so that single words have a value; f counts rows, so that a word repeated
    in one row counts once; candidates are n-grams between stop words and punctuation instead of tagged noun phrases,
    whose last word is no adjective, participle or first name; b has at most ``max_words`` + 1 words; concepts are of at
    most 5 % of the rows (or 20); values above 0; sentences that 0.3 % of the rows (and more than 20) share word by word
    are a template's and not read. Of a row's concepts none is contained in another.

    Parameters
    ----------
    texts : iterable of str
        One a row; read once.
    min_rows : int
        The fewest rows that hold a concept; at least 1.
    max_words : int
        The most words of a concept, 1 to 5. In scripts without spaces a character is a word, but no concept alone.
    per_row : int
        The most concepts of a row; at least 1.
    max_share : float
        What more than this share of the rows hold, and more than 20, is no concept.

    Returns
    -------
    Concepts
        Only those that some row lists are numbered. The order of the texts matters for the order of ``ids`` alone.

    Raises
    ------
    DataPrunerError
        When a parameter is out of its range or a text is no string.

    Notes
    -----
    The stop words are English. An n-gram has enough rows only if both its parts one word shorter have; and before
    n-grams are counted exactly, their hashes are, in an array of fixed size (Park, Chen & Yu 1995, "An effective
    hash-based algorithm for mining association rules"). Memory holds 8 bytes a token, the words, and the n-grams that
    are likely to have ``min_rows`` rows, never all n-grams.
    """
    for name, value, highest in (
        ("min_rows", min_rows, None),
        ("max_words", max_words, 5),
        ("per_row", per_row, None),
    ):
        if value < 1 or (highest is not None and value > highest):
            limit = "at least 1" if highest is None else f"from 1 to {highest}"
            raise DataPrunerError(f"{name} must be {limit}, not {value}")
    corpus = _read(texts)
    return _extract(
        corpus, min_rows, max_words, per_row, min(_BUCKETS, 1 + 8 * len(corpus.tokens)), max_share
    )


# Words ------------------------------------------------------------------------------------------------------------


class _Vocabulary(dict[str, int]):
    """Numbers words as they come; -1 stands for everything that bounds an n-gram."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def __missing__(self, token: str) -> int:
        word = token.replace("’", "'").removesuffix("'s").strip("_")
        if bounds(word):
            number = -1
        elif word == token:
            number = len(self.words)
            self.words.append(word)
        else:
            number = self[word]
        # Different numbers and symbols may be millions: long ones are not remembered.
        if number >= 0 or len(token) < 4 or token in STOP_WORDS:
            self[token] = number
        return number


class _Corpus(NamedTuple):
    """Token numbers of all rows, -1 at a boundary and after every sentence; where the rows start; the words."""

    tokens: NDArray[np.int32]
    starts: Ints
    words: list[str]


def _read(texts: Iterable[str]) -> _Corpus:
    """Turn texts into numbers; the texts themselves are let go."""
    vocabulary, tokens, starts = _Vocabulary(), array("i"), array("q", [0])
    hashes, ends = array("Q"), array("q", [0])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataPrunerError(
                f"row {row} is of type {type(text).__name__}, not a text; pass one string a row"
            )
        split, lower = _ascii_tokens, text.lower()
        if not text.isascii():
            split = _tokens
            lower = spread(unicodedata.normalize("NFC", text).lower())
        for sentence in _sentences(lower):
            found = split(sentence)
            tokens.extend([vocabulary[token] for token in found])
            tokens.append(-1)
            ends.append(len(tokens))
            if len(found) < REPEATED_WORDS:
                hashes.append(0)
            else:
                hashes.append(xxh3_64_intdigest(sentence.strip().encode("utf-8", "surrogatepass")) | 1)
        starts.append(len(tokens))
    numbers, first = np.array(tokens, dtype=np.int32), np.array(starts, dtype=np.int64)
    _drop_repeated(numbers, np.array(hashes, dtype=np.uint64), np.array(ends, dtype=np.int64), first)
    return _Corpus(numbers, first, vocabulary.words)


def _drop_repeated(tokens: NDArray[np.int32], hashes: NDArray[np.uint64], ends: Ints, starts: Ints) -> None:
    """Make boundaries of the sentences that many rows share."""
    n = len(starts) - 1
    different, sentence = np.unique(hashes, return_inverse=True)
    rows = np.searchsorted(starts, ends[:-1], side="right") - 1
    which, times = _runs(_distinct(sentence * max(1, n) + rows) // max(1, n))
    repeated = np.zeros(len(different), dtype=bool)
    repeated[which] = times > max(FEW_ROWS, REPEATED_SHARE * n)
    repeated &= different > 0
    tokens[np.repeat(repeated[sentence], np.diff(ends))] = -1


# Counting ---------------------------------------------------------------------------------------------------------


class _Level(NamedTuple):
    """The frequent n-grams of one length, numbered: ``left << 32 | right``, their parts one word shorter; and rows."""

    keys: Ints
    rows: Ints


def _count(corpus: _Corpus, floor: int, longest: int, buckets: int | None) -> list[_Level]:
    """Find the n-grams of at least ``floor`` rows, for every length; plainly without ``buckets``, which is equal."""
    levels = [_words(corpus, floor)]
    grams = np.full(
        len(corpus.words) + 1, -1, dtype=np.int32
    )  # the last entry is what the boundaries' -1 reads
    grams[levels[0].keys] = np.arange(len(levels[0].keys))
    grams = grams[corpus.tokens]
    while len(levels) < longest and len(levels[-1].keys):
        likely = None if buckets is None else _likely(corpus, grams, floor, buckets)
        levels.append(_frequent(corpus, grams, floor, likely))
        for first, end in _blocks(corpus):
            part = slice(corpus.starts[first], corpus.starts[end])
            grams[part] = _find(levels[-1].keys, _longer(grams[part]))
    return levels


def _words(corpus: _Corpus, floor: int) -> _Level:
    """Find the words of at least ``floor`` rows."""
    counts = np.zeros(len(corpus.words), dtype=np.int64)
    for first, end in _blocks(corpus):
        words, rows = _there(corpus, corpus.tokens, first, end)
        found, times = _runs(_distinct(words * (end - first) + rows) // (end - first))
        counts[found] += times
    keys = np.flatnonzero(counts >= floor)
    return _Level(keys, counts[keys])


def _likely(corpus: _Corpus, grams: NDArray[np.int32], floor: int, buckets: int) -> Flags:
    """Mark the hashes of n-grams one word longer than ``grams`` that occur often enough: no other is frequent."""
    counts = np.zeros(buckets, dtype=np.int32)
    for first, end in _blocks(corpus):
        np.add.at(counts, _bucket(_there(corpus, grams, first, end, longer=True)[0], buckets), 1)
    return counts >= floor


def _frequent(corpus: _Corpus, grams: NDArray[np.int32], floor: int, likely: Flags | None) -> _Level:
    """Find the n-grams one word longer than ``grams`` of at least ``floor`` rows."""
    parts, pending = [_Level(np.empty(0, np.int64), np.empty(0, np.int64))], 0
    for first, end in _blocks(corpus):
        keys, rows = _there(corpus, grams, first, end, longer=True)
        some = slice(None) if likely is None else likely[_bucket(keys, len(likely))]
        different, places = np.unique(keys[some], return_inverse=True)
        pairs = _distinct(places * (end - first) + rows[some])
        parts.append(_Level(different, _runs(pairs // (end - first))[1]))
        pending += len(different)
        if pending > max(_BLOCK, len(parts[0].keys)):
            parts, pending = [_merged(parts)], 0
    level = _merged(parts)
    return _Level(level.keys[level.rows >= floor], level.rows[level.rows >= floor])


def _there(
    corpus: _Corpus, grams: NDArray[np.int32], first: int, end: int, longer: bool = False
) -> tuple[Ints, Ints]:
    """Give the n-grams of some rows (or the keys of those one word longer), and their rows counted from ``first``."""
    starts = corpus.starts[first : end + 1]
    part = grams[starts[0] : starts[-1]]
    found = _longer(part) if longer else part.astype(np.int64)
    places = np.flatnonzero(found >= 0)
    return found[places], np.repeat(np.arange(end - first), np.diff(starts))[places]


def _blocks(corpus: _Corpus) -> Iterator[tuple[int, int]]:
    """Go through ranges of rows that are looked at together."""
    first, n = 0, len(corpus.starts) - 1
    while first < n:
        end = int(np.searchsorted(corpus.starts, corpus.starts[first] + _BLOCK, side="right")) - 1
        yield first, min(n, max(end, first + 1))
        first = min(n, max(end, first + 1))


def _longer(grams: NDArray[np.int32]) -> Ints:
    """Join each n-gram with the one that starts a word later; -1 where one of them is missing."""
    after = np.append(grams[1:], np.int32(-1))
    return np.where((grams < 0) | (after < 0), -1, grams.astype(np.int64) << 32 | after)


def _find(keys: Ints, wanted: Ints) -> NDArray[np.int32]:
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


def _distinct(values: Ints) -> Ints:
    """Give the different values, ascending; numpy's own way through a hash table takes several times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _runs(ascending: Ints) -> tuple[Ints, Ints]:
    """Give the different values of an ascending array of numbers from 0, and how often each occurs."""
    heads = np.flatnonzero(np.diff(ascending, prepend=-1))
    return ascending[heads], np.diff(heads, append=len(ascending))


def _merged(parts: list[_Level]) -> _Level:
    """Add up counts of blocks."""
    keys, places = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    rows = np.bincount(places, np.concatenate([part.rows for part in parts]), minlength=len(keys))
    return _Level(keys, rows.astype(np.int64))


# Ranking ----------------------------------------------------------------------------------------------------------


def _parts(levels: list[_Level], length: int) -> list[Ints]:
    """Give the parts of all n-grams of ``length`` + 1 words: an array (k, parts) for 1, 2, ... words."""
    out = [np.arange(len(levels[length].keys))[:, None]]
    for level in levels[length:0:-1]:
        keys = level.keys[out[0]]
        out.insert(0, np.column_stack([keys >> 32, keys[:, -1] & 0xFFFFFFFF]))
    return out


def _c_values(levels: list[_Level], candidate: list[Flags]) -> list[NDArray[np.float64]]:
    """C-value of every frequent n-gram; only candidates count as longer ones."""
    total = [np.zeros(len(level.keys)) for level in levels]
    count = [np.zeros(len(level.keys)) for level in levels]
    for longer in range(1, len(levels)):
        for shorter, parts in enumerate(_parts(levels, longer)[:-1]):
            ordered = np.sort(parts, axis=1)
            # A part may occur twice in one longer candidate, which is one all the same.
            once = (np.diff(ordered, axis=1, prepend=-1) > 0) & candidate[longer][:, None]
            weights = np.repeat(levels[longer].rows, once.sum(axis=1))
            total[shorter] += np.bincount(ordered[once], weights, minlength=len(total[shorter]))
            count[shorter] += np.bincount(ordered[once], minlength=len(total[shorter]))
    return [
        np.log2(length + 2) * (level.rows - total[length] / np.maximum(1, count[length]))
        for length, level in enumerate(levels)
    ]


def _candidates(words: list[str], levels: list[_Level], ceiling: float) -> list[Flags]:
    """Mark the n-grams that may be concepts: by their last word, and by their rows."""
    closing = np.array([closes(word) for word in words], dtype=bool)
    alone = np.array([stands_alone(word) for word in words], dtype=bool)
    last = [_parts(levels, length)[0][:, -1] for length in range(len(levels))]
    return [
        closing[end] & (alone[end] if length == 0 else True) & (level.rows <= ceiling)
        for length, (end, level) in enumerate(zip(last, levels, strict=True))
    ]


def _extract(
    corpus: _Corpus,
    floor: int,
    max_words: int,
    per_row: int,
    buckets: int | None,
    max_share: float = MAX_SHARE,
) -> Concepts:
    """Count, rank, and let each row take its best."""
    n = len(corpus.starts) - 1
    levels = _count(corpus, floor, max_words + 1, buckets)
    words = [corpus.words[key] for key in levels[0].keys.tolist()]
    candidate = _candidates(words, levels, max(max_share * n, FEW_ROWS))
    values = _c_values(levels, candidate)
    levels, values = levels[:max_words], values[:max_words]
    chosen = [np.flatnonzero(flags & (value > 0)) for flags, value in zip(candidate, values, strict=False)]
    names = [
        joined([words[part] for part in parts])
        for length, which in enumerate(chosen)
        for parts in _parts(levels, length)[0][which].tolist()
    ]
    c_values = np.concatenate([value[which] for value, which in zip(values, chosen, strict=True)])
    rows = np.concatenate([level.rows[which] for level, which in zip(levels, chosen, strict=True)])
    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    order = order[np.argsort(-c_values[order], kind="stable")]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    places, start = [], 0
    for level, which in zip(levels, chosen, strict=True):
        places.append(np.full(len(level.keys), -1))
        places[-1][which] = rank[start : start + len(which)]
        start += len(which)
    lengths, listed = _listed(corpus, levels, places, per_row)
    used, ids = np.unique(listed, return_inverse=True)
    held = order[used]
    texts = np.array([names[number] for number in held.tolist()], dtype=np.str_)
    return Concepts(Ragged(ids.astype(np.int64), offsets_of(lengths)), texts, c_values[held], rows[held])


def _listed(corpus: _Corpus, levels: list[_Level], places: list[Ints], per_row: int) -> tuple[Ints, Ints]:
    """Give each row's best candidates that no longer candidate of the row contains: how many, and their places."""
    k = max(1, sum(len(level.keys) for level in levels))
    inside = [_parts(levels, length)[:-1] for length in range(len(levels))]
    lengths, listed = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end in _blocks(corpus):
        starts = corpus.starts[first : end + 1]
        rows = np.repeat(np.arange(end - first), np.diff(starts))
        grams = _find(levels[0].keys, corpus.tokens[starts[0] : starts[-1]].astype(np.int64))
        present, hidden = [], [np.empty(0, np.int64)]
        for length, level in enumerate(levels):
            grams = _find(level.keys, _longer(grams)) if length else grams
            there = np.flatnonzero(grams >= 0)
            there = there[places[length][grams[there]] >= 0]
            row, found = rows[there] * k, grams[there]
            present.append(row + places[length][found])
            for shorter, parts in enumerate(inside[length]):
                inner = places[shorter][parts[found]]
                hidden.append((row[:, None] + inner)[inner >= 0])
        shown, below = _distinct(np.concatenate(present)), _distinct(np.concatenate(hidden))
        kept = shown[_find(below, shown) < 0]
        row = kept // k
        best = np.arange(len(kept)) - np.searchsorted(row, row) < per_row
        lengths.append(np.bincount(row[best], minlength=end - first))
        listed.append(kept[best] % k)
    return np.concatenate(lengths), np.concatenate(listed)

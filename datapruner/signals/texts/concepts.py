"""Concepts of texts: what each row is about, by counting alone, without a tagger or any other model.

A concept is an n-gram of words between stop words and punctuation that several rows share, ranked by its C-value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.texts.corpus import FEW_ROWS, Corpus, blocks, distinct, read
from datapruner.signals.texts.ngrams import Level, count, find, longer_grams
from datapruner.signals.texts.stop_words import closes, stands_alone
from datapruner.words import joined

MAX_SHARE = 0.05
"""What more than this share of the rows hold, and more than ``FEW_ROWS``, is no concept."""
BUCKETS = 1 << 24


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
    c_values: Floats
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
    corpus = read(texts)
    return extract(corpus, min_rows, max_words, per_row, min(BUCKETS, 1 + 8 * len(corpus.tokens)), max_share)


def extract(
    corpus: Corpus,
    floor: int,
    max_words: int,
    per_row: int,
    buckets: int | None,
    max_share: float = MAX_SHARE,
) -> Concepts:
    """Count, rank, and let each row take its best."""
    n = len(corpus.starts) - 1
    levels = count(corpus, floor, max_words + 1, buckets)
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


def _candidates(words: list[str], levels: list[Level], ceiling: float) -> list[Flags]:
    """Mark the n-grams that may be concepts: by their last word, and by their rows."""
    closing = np.array([closes(word) for word in words], dtype=bool)
    alone = np.array([stands_alone(word) for word in words], dtype=bool)
    last = [_parts(levels, length)[0][:, -1] for length in range(len(levels))]
    return [
        closing[end] & (alone[end] if length == 0 else True) & (level.rows <= ceiling)
        for length, (end, level) in enumerate(zip(last, levels, strict=True))
    ]


def _c_values(levels: list[Level], candidate: list[Flags]) -> list[Floats]:
    """C-value of every frequent n-gram; only candidates count as longer ones."""
    total = [np.zeros(len(level.keys)) for level in levels]
    times = [np.zeros(len(level.keys)) for level in levels]
    for longer in range(1, len(levels)):
        for shorter, parts in enumerate(_parts(levels, longer)[:-1]):
            ordered = np.sort(parts, axis=1)
            # A part may occur twice in one longer candidate, which is one all the same.
            once = (np.diff(ordered, axis=1, prepend=-1) > 0) & candidate[longer][:, None]
            weights = np.repeat(levels[longer].rows, once.sum(axis=1))
            total[shorter] += np.bincount(ordered[once], weights, minlength=len(total[shorter]))
            times[shorter] += np.bincount(ordered[once], minlength=len(total[shorter]))
    return [
        np.log2(length + 2) * (level.rows - total[length] / np.maximum(1, times[length]))
        for length, level in enumerate(levels)
    ]


def _parts(levels: list[Level], length: int) -> list[Ints]:
    """Give the parts of all n-grams of ``length`` + 1 words: an array (k, parts) for 1, 2, ... words."""
    out = [np.arange(len(levels[length].keys))[:, None]]
    for level in levels[length:0:-1]:
        keys = level.keys[out[0]]
        out.insert(0, np.column_stack([keys >> 32, keys[:, -1] & 0xFFFFFFFF]))
    return out


def _listed(corpus: Corpus, levels: list[Level], places: list[Ints], per_row: int) -> tuple[Ints, Ints]:
    """Give each row's best candidates that no longer candidate of the row contains: how many, and their places."""
    k = max(1, sum(len(level.keys) for level in levels))
    inside = [_parts(levels, length)[:-1] for length in range(len(levels))]
    lengths, listed = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end in blocks(corpus):
        starts = corpus.starts[first : end + 1]
        rows = np.repeat(np.arange(end - first), np.diff(starts))
        grams = find(levels[0].keys, corpus.tokens[starts[0] : starts[-1]].astype(np.int64))
        present, hidden = [], [np.empty(0, np.int64)]
        for length, level in enumerate(levels):
            grams = find(level.keys, longer_grams(grams)) if length else grams
            there = np.flatnonzero(grams >= 0)
            there = there[places[length][grams[there]] >= 0]
            row, found = rows[there] * k, grams[there]
            present.append(row + places[length][found])
            for shorter, parts in enumerate(inside[length]):
                inner = places[shorter][parts[found]]
                hidden.append((row[:, None] + inner)[inner >= 0])
        shown, below = distinct(np.concatenate(present)), distinct(np.concatenate(hidden))
        kept = shown[find(below, shown) < 0]
        row = kept // k
        best = np.arange(len(kept)) - np.searchsorted(row, row) < per_row
        lengths.append(np.bincount(row[best], minlength=end - first))
        listed.append(kept[best] % k)
    return np.concatenate(lengths), np.concatenate(listed)

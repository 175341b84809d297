"""Texts as numbers of words, with a boundary after every sentence and at every stop word."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.signals.texts.stop_words import STOP_WORDS, bounds
from datapruner.words import spread

AT_ONCE = 1 << 20
"""Tokens that are looked at together."""
FEW_ROWS = 20
REPEATED_SHARE = 0.003
REPEATED_WORDS = 3
"""A sentence of so many words that more than this share of the rows hold, and more than FEW_ROWS, is a template's."""

# Python's \w leaves out combining marks, of which the words of many scripts are full.
_LETTERS = r"[\w\p{M}]+"
_tokens = regex.compile(rf"c\+\+|[cf]#|{_LETTERS}(?:[-'’]{_LETTERS})*|[^\s\w\p{{M}}]+").findall
_ascii_tokens = re.compile(r"c\+\+|[cf]#|\w+(?:[-']\w+)*|[^\s\w]+", re.ASCII).findall
_sentences = re.compile(r"[.?!:]\s+|\n").split


class Vocabulary(dict[str, int]):
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


class Corpus(NamedTuple):
    """Token numbers of all rows, -1 at a boundary and after every sentence; where the rows start; the words.

    ``at_once`` tokens are looked at together.
    """

    tokens: NDArray[np.int32]
    starts: Ints
    words: list[str]
    at_once: int = AT_ONCE


def read(texts: Iterable[str]) -> Corpus:
    """Turn texts into numbers; the texts themselves are let go."""
    vocabulary, tokens, starts = Vocabulary(), array("i"), array("q", [0])
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
    return Corpus(numbers, first, vocabulary.words)


def _drop_repeated(tokens: NDArray[np.int32], hashes: NDArray[np.uint64], ends: Ints, starts: Ints) -> None:
    """Make boundaries of the sentences that many rows share."""
    n = len(starts) - 1
    different, sentence = np.unique(hashes, return_inverse=True)
    rows = np.searchsorted(starts, ends[:-1], side="right") - 1
    which, times = runs(distinct(sentence * max(1, n) + rows) // max(1, n))
    repeated = np.zeros(len(different), dtype=bool)
    repeated[which] = times > max(FEW_ROWS, REPEATED_SHARE * n)
    repeated &= different > 0
    tokens[np.repeat(repeated[sentence], np.diff(ends))] = -1


def blocks(corpus: Corpus) -> Iterator[tuple[int, int]]:
    """Go through ranges of rows that are looked at together."""
    first, n = 0, len(corpus.starts) - 1
    while first < n:
        end = int(np.searchsorted(corpus.starts, corpus.starts[first] + corpus.at_once, side="right")) - 1
        yield first, min(n, max(end, first + 1))
        first = min(n, max(end, first + 1))


def distinct(values: Ints) -> Ints:
    """Give the different values, ascending; numpy's own way through a hash table takes several times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def runs(ascending: Ints) -> tuple[Ints, Ints]:
    """Give the different values of an ascending array of numbers from 0, and how often each occurs."""
    heads = np.flatnonzero(np.diff(ascending, prepend=-1))
    return ascending[heads], np.diff(heads, append=len(ascending))

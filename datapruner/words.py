"""Words of texts in any script, by Unicode's properties: what duplicates and leaks are compared by.

A script that is written without spaces has no words that can be told without a dictionary; there a grapheme
cluster (a letter with its marks, as a reader sees it) stands for a word, in Tibetan a syllable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import regex

from datapruner.text import normalise

# Line breaking needs a dictionary (SA: Thai, Lao, Khmer, Myanmar, Tai ...) or may come anywhere between syllables
# (AK, AS: Balinese, Javanese, Cham ...); ideographs of all planes; the syllabaries of East Asia.
UNSPACED = (
    r"\p{LB=SA}\p{LB=AK}\p{LB=AS}\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Nushu}\p{Tangut}"
)
"""The inside of a character class for the module `regex`: scripts that are written without spaces."""
_SYLLABLE = r"[\p{Tibetan}&&[\p{L}\p{M}\p{N}]]+"
_TSHEG = "\u0f0b\u0f0c"
_NO_TSHEG = str.maketrans(dict.fromkeys(_TSHEG, " "))
_PLANES = 0x40000
"""Planes beyond have no letters."""

_APOSTROPHES = "'\u2018\u2019\u02bc`"
POINTS = r"[[\p{scx=Hebr}\p{scx=Arab}]&&\p{Mn}]\u0640"
"""Likewise: what a text of the same words may leave out, niqqud, tashkeel and the stroke that stretches a word."""


@cache
def _is_unspaced() -> re.Pattern[str]:
    """Give a pattern of :mod:`re`, ten times as fast on a long text, of the characters that the properties name."""
    every = "".join(chr(code) for code in range(0x80, _PLANES) if not 0xD800 <= code < 0xE000)
    ranges = [(found.start(), found.end()) for found in _compiled(f"[{UNSPACED}{_TSHEG}]+").finditer(every)]
    return re.compile("[" + "".join(f"{every[first]}-{every[end - 1]}" for first, end in ranges) + "]")


@cache
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern, regex.VERSION1)


def has_unspaced(text: str) -> bool:
    """Whether a text holds a letter of a script that is written without spaces."""
    return not text.isascii() and _is_unspaced().search(text) is not None


def spread(text: str) -> str:
    """Set blanks around every grapheme cluster, or syllable, of the scripts without spaces."""
    if not has_unspaced(text):
        return text
    spaced: str = _compiled(rf"{_SYLLABLE}|(?=[{UNSPACED}])\X").sub(r" \g<0> ", text)
    return spaced.translate(_NO_TSHEG)


def is_unspaced(word: str) -> bool:
    """Whether a word begins with a letter of a script without spaces, and is thus a letter or a syllable of one."""
    return not word.isascii() and _compiled(rf"[{UNSPACED}]|{_SYLLABLE}").match(word) is not None


def joined(words: Sequence[str]) -> str:
    """Put words together as they are written: what :func:`spread` parted without a blank."""
    out = words[0]
    for before, word in pairwise(words):
        glued = is_unspaced(before) and is_unspaced(word)
        syllables = glued and _compiled(_SYLLABLE).fullmatch(word) is not None
        out += (_TSHEG[0] if syllables else "" if glued else " ") + word
    return out


def words_of(text: str) -> list[str]:
    """Split a text, normalised, at white space, and scripts without spaces at every grapheme cluster or syllable.

    Punctuation stays with its word.
    """
    if text.isascii():
        return text.lower().split()
    text = normalise(text)
    if not has_unspaced(text):
        return text.split()
    found: list[str] = _mixed().findall(text)
    return found


def word_spans(text: str) -> list[tuple[int, int]]:
    """Tell where the words of a text, as it is, begin and end."""
    pattern = _mixed() if has_unspaced(text) else _BETWEEN_BLANKS
    return [found.span() for found in pattern.finditer(text)]


_BETWEEN_BLANKS = re.compile(r"\S+")


def _mixed() -> Any:
    """Give the pattern of a word in a text that holds scripts without spaces."""
    syllables = r"[\p{Tibetan}&&[\p{L}\p{M}\p{N}]]"
    return _compiled(rf"{_SYLLABLE}|(?=[{UNSPACED}])\X|[^\s{UNSPACED}{_TSHEG}{syllables}]+")


def bare_words(text: str) -> list[str]:
    """Give the letters and digits of a text, word by word: no case, punctuation, apostrophes or optional points.

    Marks belong to their word, as the vowel signs of Indic scripts do; joiners and other invisible characters are
    left out; points of Hebrew and Arabic, which a text of the same words may lack, too.
    """
    text = normalise(text)
    if text.isascii():
        return _ASCII_WORD(text.translate(_NO_APOSTROPHES))
    text = _compiled(rf"[\p{{Cf}}{_APOSTROPHES}{POINTS}]").sub("", text)
    found: list[str] = _compiled(
        rf"{_SYLLABLE}|(?=[[{UNSPACED}]&&[\p{{L}}\p{{M}}\p{{N}}]])\X|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}\p{{Tibetan}}]]+"
    ).findall(text)
    return found


_NO_APOSTROPHES = str.maketrans("", "", _APOSTROPHES)
_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII).findall


def numbers_of(text: str) -> tuple[str, ...]:
    """Give the numbers of a text in order, as ASCII digits: ``3``, ``1.5``, ``1,000`` (Devanagari's ``३`` is ``3``)."""
    found = _NUMBER(text)
    if text.isascii():
        return tuple(found)
    return tuple("".join(str(int(sign)) if sign.isdecimal() else sign for sign in one) for one in found)


_NUMBER = re.compile(r"\d+(?:[.,]\d+)*").findall

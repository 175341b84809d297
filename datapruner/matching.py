"""When two texts count as the same: byte for byte, but for white space and Unicode form, or in their words alone."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

import regex

from datapruner.choices import Match
from datapruner.text import normalise
from datapruner.words import POINTS

TAB = 4
"""Columns of a tab."""

_INDENTED = re.compile(r"\n[ \t]+\S")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
# A line after which a deeper one is a part of it, in most languages that nest by lines or are laid out so.
_OPENS = re.compile(
    r"[:{(\[,=>\\|;]$|\b(?:do|then|else|begin|try|loop|repeat|where|of|is|as)$"
    r"|^\s*(?:async|case|class|def|fn|for|func|function|if|impl|module|proc|struct|sub|unless|until|when|while|with)\b"
)


def match_form(text: str, match: Match = "text") -> str:
    r"""Return the form under which two texts count as exact duplicates.

    Equal under ``exact`` means equal under ``text``, and equal under ``text`` means equal under ``loose``.

    Parameters
    ----------
    text
        Any string.
    match
        ``exact``: every character counts.

        ``text``: canonical Unicode composition (NFC), every run of white space one blank, none at the ends.
        Compatibility forms stay distinct, because folding them changes what a text says: ``5²`` is not ``52``;
        the price is that fullwidth ``Ａ`` is not ``A`` either. Of a text that **holds code**, lines and how deep
        they are nested count too, so that a Python line moved out of a loop is another text, and the same code
        under tabs, two or four blanks is not. It holds code where a line begins with a fence (three backticks
        or tildes), or where a line stands deeper than the one before it and is led by a tab or follows a line
        that opens something: one that ends in ``: { ( [ , = > \ | ;`` or a word such as ``then``, or begins
        with a word such as ``def``.

        ``loose``: case folded as well, and without punctuation, invisible characters and the points of Hebrew
        and Arabic. Symbols count (``2+3`` is not ``2<3``), and so do the signs of numbers (``-5``, ``2-3``,
        ``50%``). A text that holds code, or has no word at all, is compared as under ``text``.

    Notes
    -----
    A NUL parts a text: :meth:`~datapruner.samples.sample.Sample.key` sets them between turns.
    """
    if match == "exact":
        return text
    plain = text if text.isascii() else unicodedata.normalize("NFC", text)
    if not _may_hold_code(plain) or not any(map(holds_code, plain.split("\0"))):
        return _loose(plain) if match == "loose" else " ".join(plain.split())
    return "\0".join(map(_code_form, plain.split("\0"))).strip(" ")


def holds_code(text: str) -> bool:
    """Whether lines and their indentation count in a text; see :func:`match_form` for how that is told."""
    if not _may_hold_code(text):
        return False
    if _FENCE.search(text):
        return True
    lines = [line.expandtabs(TAB) for line in _lines(text)]
    tabbed = [line.lstrip(" ").startswith("\t") for line in _lines(text)]
    depths = [len(line) - len(line.lstrip()) for line in lines]
    return any(
        depths[place] < depths[place + 1] and (tabbed[place + 1] or _OPENS.search(lines[place].rstrip()))
        for place in range(len(lines) - 1)
    )


def _may_hold_code(text: str) -> bool:
    """Rule most texts out, in a few hundred nanoseconds."""
    return "```" in text or "~~~" in text or ("\n" in text and _INDENTED.search(text) is not None)


def nesting(text: str) -> tuple[int, ...]:
    """Return how deep each line of a text is nested, blank lines left out; nothing for a text without code.

    Deeper than the line before is one level more, however many columns; Python reads indentation so.
    """
    if not holds_code(text):
        return ()
    spread = [line.expandtabs(TAB) for line in _lines(text)]
    widths = [len(line) - len(line.lstrip()) for line in spread]
    open_widths = [min(widths)]
    levels = []
    for width in widths:
        while open_widths[-1] > width:
            open_widths.pop()
        if width > open_widths[-1]:
            open_widths.append(width)
        levels.append(len(open_widths) - 1)
    return tuple(levels)


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text) if line.strip()]


def _code_form(piece: str) -> str:
    """Give the part of a text between NULs, with a tab for every level; what surrounds it keeps one blank."""
    if not holds_code(piece):
        body = " ".join(piece.split())
    else:
        levels = nesting(piece)
        body = "\n".join(
            "\t" * level + " ".join(line.split()) for level, line in zip(levels, _lines(piece), strict=True)
        )
    if not body:
        return " " if piece else ""
    return " " * piece[:1].isspace() + body + " " * piece[-1:].isspace()


@cache
def _patterns() -> tuple[Any, Any]:
    # A sign before a number, between two, or a percent sign after one says what the number is.
    signs = "|".join(
        [
            r"(?<![\p{L}\p{N}])[-−](?=[.,]?\d)",
            r"(?<=\d\s?)[-−–*/](?=\s?\d)",
            r"(?<=\d\s?)%",
            r"(?<![\p{L}\p{P}])[.,](?=\d)",
            r"(?<=(?<![\p{L}\p{N}])[-−])\.(?=\d)",
        ]
    )
    return (
        regex.compile(rf"[\p{{Cf}}'\u2018\u2019\u02bc`{POINTS}]", regex.VERSION1),
        regex.compile(rf"({signs})|\p{{P}}", regex.VERSION1),
    )


def _loose(text: str) -> str:
    unseen, punctuation = _patterns()
    folded = normalise(text)
    bare = punctuation.sub(lambda found: found[1] or " ", unseen.sub("", folded))
    return " ".join(normalise(bare).split()) or " ".join(text.split())

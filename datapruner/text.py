"""Small text helpers: hostile text made harmless for a terminal, and one normal form for duplicates."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

# Control, format (bidi marks, zero-width characters, tags), surrogates, line and paragraph separators:
# everything that moves the cursor, hides text or cannot be encoded.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKS = {"\n": "⏎", "\t": "\\t", "\r": "\\r"}


def _visible(character: str) -> str:
    """Return one character, or its visible escape when a terminal would act on it."""
    if character in _MARKS:
        return _MARKS[character]
    if unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def safe_text(text: str, limit: int | None = None) -> str:
    r"""Make a text harmless to print on one line.

    Control characters, ANSI escapes, bidi and zero-width marks, line separators and lone surrogates become
    visible escapes such as ``\x1b`` or ``\u202e``; a newline becomes ``⏎``.

    Parameters
    ----------
    text
        Any string.
    limit
        The longest result in characters; a longer one is cut (never inside an escape) and ends in ``…``.
    """
    # A 10 MB cell must not be walked to show 80 characters of it; an escape never shortens the text.
    head = text if limit is None else text[: limit + 1]
    if head.isprintable():
        pieces: Iterable[str] = head
        if limit is None or len(head) <= limit:
            return head
    else:
        pieces = [_visible(character) for character in head]
        if limit is None or sum(map(len, pieces)) <= limit:
            return "".join(pieces)
    kept: list[str] = []
    room = limit - 1
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…" if limit > 0 else ""


def safe_lines(text: str) -> str:
    """Make a text harmless to show over several lines: like :func:`safe_text`, but newlines and tabs stay."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(safe_text, line.split("\t"))) for line in lines)


def normalise(text: str) -> str:
    """Return the form under which two texts count as exact duplicates.

    Canonical Unicode composition (NFC), case folded, every run of white space one blank, none at the ends.
    Compatibility forms stay distinct, because folding them changes what a text says: ``5²`` is not ``52``
    and ``½`` not ``1/2``; the price is that fullwidth ``Ａ`` is not ``A`` either.
    """
    if not text.isascii():
        # Full case folding needs decomposed input ('ᾳ' and the like) and leaves decomposed output.
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
        return " ".join(text.split())
    return " ".join(text.lower().split())


def did_you_mean(word: str, options: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest option, or an empty string where none is as near as that."""
    by_fold = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=cutoff)
    return f" Did you mean '{safe_text(by_fold[near[0]], 60)}'?" if near else ""


def safe_repr(value: object, limit: int = 80) -> str:
    """Show a value as Python writes it, harmless and on one line; a number without end as what it is."""
    try:
        return safe_text(repr(value), limit)
    except ValueError:  # Python turns no number of more than 4,300 digits into text
        return "a number of thousands of digits"
    except RecursionError:
        return "a value that is nested without end"

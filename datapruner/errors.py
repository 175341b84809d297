"""The one exception family: a sentence for the user, with the way out, in the words of the way in.

Messages name an option as the command line writes it, ``--max-length`` or with a value ``--on-empty=drop``. That is
the neutral form: the command line shows it as it is typed there (``--on-empty drop``), and whoever calls from Python
reads of arguments (``max_length=``, ``on_empty='drop'``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_OPTION = re.compile(r"(?<![\w\-'\"“./=])--([a-z][a-z0-9-]*)(?:=([^\s;()]*[^\s;:().,]))?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SWITCHES = frozenset({
    "changed-source", "count-tokens", "dedup", "last-turn-only", "near-blanks", "near-numbers", "overwrite",
    "packing", "report", "similarity-context", "stability", "trust-code",
})  # fmt: skip
"""Options without a value."""
_OTHER_NAMES = {
    "limit": "limits",
    "quota": "quotas",
    "quiet": "progress=False",
    "dedup-semantic": "dedup=['exact', 'near', 'semantic']",
}
_as_flags: list[bool] = []

MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)
"""What reading a description raises, by us or by a library, that is of another shape than is written there."""


class DataPrunerError(Exception):
    """Anything the user can put right; the command line prints the sentence and exits with 2."""

    @property
    def sentence(self) -> str:
        """The sentence as it was written, for one that is made of it."""
        return super().__str__()

    def __str__(self) -> str:
        """Give the sentence in the words of the way in."""
        return in_words(self.sentence)


class RowError(DataPrunerError):
    """Names a row of the source: where this is several, which one's row it is gets said, too.

    Attributes
    ----------
    row : int or None
        Its position, as the sentence has it; None once its place is told, or where it is a row of another set.
    """

    def __init__(self, sentence: str, row: int) -> None:
        super().__init__(sentence)
        self.row: int | None = int(row)

    def place(self, where: str) -> None:
        """Put behind the row where it lies, once; nothing where there is nothing to say."""
        if self.row is not None and where:
            told = re.sub(
                rf"\b[Rr]ow {self.row}\b", lambda found: f"{found[0]} ({where})", self.sentence, count=1
            )
            self.args = (told,)
        self.row = None


@contextmanager
def flags() -> Iterator[None]:
    """Speak of flags, as the command line does, for as long as this lasts."""
    _as_flags.append(True)
    try:
        yield
    finally:
        _as_flags.pop()


def in_words(sentence: str) -> str:
    """Write the options that a sentence names as flags or as arguments, whichever its reader types.

    >>> in_words("pass --max-length, or drop them with --on-empty=drop")
    "pass max_length=, or drop them with on_empty='drop'"
    """
    return _OPTION.sub(_flag if _as_flags else _argument, sentence)


def _flag(found: re.Match[str]) -> str:
    name, value = found.groups()
    return f"--{name}" if value is None else f"--{name} {value}"


def _argument(found: re.Match[str]) -> str:
    name, value = found.groups()
    other = _OTHER_NAMES.get(name, name.replace("-", "_"))
    if "=" in other:
        return other
    if value is None:
        return f"{other}=True" if name in SWITCHES else f"{other}="
    return f"{other}={_value(value)}"


def _value(text: str) -> str:
    """Write a flag's value as Python does: a number, a mapping, a text."""
    if _NUMBER.fullmatch(text):
        return text
    parts = [part.partition("=") for part in text.split(",")]
    if all(equals for _, equals, _ in parts):
        return "{" + ", ".join(f"{key!r}: {value!r}" for key, _, value in parts) + "}"
    return repr(text)

"""What may become of a row: one table of codes, with the words in which each is told.

Each step says its own reasons, in its own file; the few codes that no step has are below. Whoever tells of a row (the
card, the page, the summary, ``explain``) takes the words from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.parts import CLEANING, built_in, find
from datapruner.text import safe_repr, safe_text

CODE = re.compile(r"[a-z][a-z0-9_]{0,59}")
SENTENCE = re.compile(r"(?:[^{}]|\{(?:other|measure)(?::\.?\d{0,2}[a-z%]?)?\})*")
"""Fields of a sentence: nothing wide, and nothing of an object."""
OWN = re.compile(r"\{(?!(?:other|measure)\b)([a-z_]+)\}")
"""Fields that a step fills itself."""
LONGEST, FIELD = 200, 120
"""Characters of a sentence in a message, and of a field that a step fills."""


@dataclass(frozen=True)
class Reason:
    """Why rows are dropped: a code, and the words for it.

    Parameters
    ----------
    code : str
        In lower case with ``_``: what ``selection.parquet`` has as the cause.
    sentence : str
        Told of one row, with the fields ``{other}`` (the row that it was dropped for) and ``{measure}`` (how sure that
        is); numbers after a colon, as in ``{measure:.2f}``. Other fields are filled by :meth:`filled`.
    one, many : str, optional
        What such a row is called, and several of them: ``near duplicate``, ``near duplicates``.
    label : str, optional
        Stands beside a count: ``dropped as near duplicates``.
    way_out : str, optional
        What to do where too much was dropped; options as ``--near-threshold``.
    refers_to : str
        What ``other`` is: a ``row`` of the source, or something else, whose text the step hands on.
    """

    code: str
    sentence: str = ""
    one: str = ""
    many: str = ""
    label: str = ""
    way_out: str = ""
    refers_to: str = "row"

    def __post_init__(self) -> None:
        """Refuse what could not be saved and read again, and find the words that were left out."""
        if not CODE.fullmatch(self.code):
            raise DataPrunerError(
                f"the code of a reason has small letters, digits and '_', at most 60, not {safe_repr(self.code)}"
            )
        if not SENTENCE.fullmatch(OWN.sub("", self.sentence)):
            raise DataPrunerError(
                f"the sentence of the reason '{self.code}' may have the fields {{other}} and {{measure}}, with a "
                f"number's form such as {{measure:.2f}}, and names that the step fills; not "
                f"{safe_repr(self.sentence, LONGEST)}"
            )
        words = self.code.replace("_", " ")
        many = self.many or (f"{self.one}s" if self.one else "")
        filled = {
            "sentence": self.sentence or words,
            "one": self.one or f"row dropped as {words}",
            "many": many or f"rows dropped as {words}",
            "label": self.label or f"dropped as {many or words}",
        }
        for name, text in filled.items():
            object.__setattr__(self, name, text)

    def filled(self, **values: object) -> Reason:
        """Give it with the step's own fields in its sentence filled."""
        said = {
            name: safe_text(str(value), FIELD).translate({123: "(", 125: ")"})
            for name, value in values.items()
        }
        return replace(self, sentence=OWN.sub(lambda field: said[field[1]], self.sentence))

    def said(self, other: int, measure: float) -> str:
        """Tell it of one row."""
        return self.sentence.format(other=other, measure=measure)

    def words(self) -> dict[str, str]:
        """Give everything but the code and the sentence: what is saved of a reason that is not built in."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)[2:]}


KEPT, OVER_BUDGET, RANKED = "kept", "over_budget", "ranked"
CLEANED = "dropped_before_scoring"
"""Of results that are older than causes."""
NO_TOKENS_LEFT = Reason(
    "no_tokens_left",
    "none of its tokens is among the {share} % of highest value, which stay in the loss",
    "row that lost all its tokens",
    "rows that lost all their tokens",
    "dropped for having lost all their tokens",
)
"""Of a selector that prunes tokens over all rows."""
NOT_MEASURED = Reason(
    "not_measured",
    "{who} fails on it: {why}",
    "row that could not be measured",
    "rows that could not be measured",
    label="dropped for failing to be measured",
)
OF_NO_STEP = (
    Reason(KEPT, label="kept"),
    Reason(OVER_BUDGET, label="dropped by the budget"),
    NO_TOKENS_LEFT,
    Reason(RANKED, label="ranked"),
    Reason(CLEANED, label="dropped before scoring"),
    NOT_MEASURED,
)


@cache
def table() -> Mapping[str, Reason]:
    """Give the reasons of all built-in steps, and those of none, by their codes."""
    steps = [find(CLEANING, name).reasons for name in built_in(CLEANING)]
    return {reason.code: reason for reasons in (OF_NO_STEP, *steps) for reason in reasons}


def reason_of(code: str, saved: Mapping[str, Any] | None = None) -> Reason:
    """Give the reason of a code that a result has; of one that nobody knows here, words made of the code.

    Parameters
    ----------
    code : str
        As it was read, from whomever.
    saved : mapping, optional
        Code -> words, as the result has them of steps that are not built in; see :func:`saved_words`.
    """
    if code in table():
        return table()[code]
    words = (saved or {}).get(code, {})
    held = {
        spec.name: safe_text(str(words[spec.name]), LONGEST)
        for spec in fields(Reason)[2:]
        if words.get(spec.name)
    }
    if not CODE.fullmatch(code):  # written by nobody who had one
        return Reason("unknown", label=safe_text(code.replace("_", " "), 60) or "unknown")
    return Reason(code, **held)


def saved_words(reasons: Mapping[str, Reason]) -> dict[str, dict[str, str]]:
    """Give the words of those that are not built in: a result is told without the plug-in that made it."""
    return {code: reason.words() for code, reason in reasons.items() if code not in table()}

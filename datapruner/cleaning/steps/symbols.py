"""Rows whose answer is made of signs, or has none where it must."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from datapruner.cleaning.steps._read import Answer, Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

MANY = Reason(
    "many_symbols",
    "only {measure:.0%} of the answer's characters are letters or digits",
    "answer of symbols",
    "answers of symbols",
    way_out="a lower `fewest` keeps more of them",
)
FEW = Reason(
    "few_symbols",
    "the answer has {measure:.0f} words and no punctuation",
    "long answer without punctuation",
    "long answers without punctuation",
    way_out="a higher `words` keeps more of them",
)


DRAWN = re.compile(
    r"ascii|emoji|\bdraw|\bart\b|symbol|pattern|diagram|brainf|regex|regular exp|morse|binary|formula|equation"
    r"|\b(?:table|chart|graph|grid|board|maze|puzzle)|表情|符号|正则|图|表格|公式",
    re.IGNORECASE,
)
"""A prompt that asks for symbols."""
WORDS = re.compile(r"[^\W_]+")
MARK = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Symbols(Rule):
    """Answers that are hardly letters and digits, and long ones without a single mark.

    *Derived*: the share of alphanumeric characters (Data-Juicer's ``alphanumeric_filter``, Gopher's ratio of symbols to
    words). *Ours*: thresholds; digits count, since sums are answers; and long answers without punctuation are hit
    only where the set's have it.

    Parameters
    ----------
    fewest : float
        Share of letters and digits among the visible characters.
    least : int
        Visible characters of an answer that is looked at.
    rare : float
        Share of the set's answers that may be symbols for one to be noise: more are what the set is about (boards,
        drawings).
    words : int
        Words of an answer, on a few lines, that must have a mark.
    usual_share : float
        Share of the set's answers of so many words that have one.
    """

    fewest: Annotated[float, Ge(0), Le(1)] = 0.25
    least: Annotated[int, Ge(1)] = 12
    rare: Annotated[float, Ge(0), Le(1)] = 0.01
    words: Annotated[int, Ge(1)] = 40
    usual_share: Annotated[float, Ge(0), Le(1)] = 0.95
    name: ClassVar[str] = "symbols"
    reasons: ClassVar[tuple[Reason, ...]] = (MANY, FEW)

    def usual(self, rows: Sequence[Read]) -> tuple[bool, bool]:
        """Tell whether long answers have punctuation here, and whether few are of symbols."""
        given = [answer for read in rows for answer in read.answers]
        long = [answer.text for answer in given if len(answer.text.split()) >= self.words]
        marked = sum(MARK.search(text) is not None for text in long)
        drawn = sum(self._letters(answer) is not None for answer in given)
        return len(long) > 0 and marked / len(long) >= self.usual_share, drawn <= max(
            3, self.rare * len(rows)
        )

    def hit(self, read: Read, usual: tuple[bool, bool]) -> Hit | None:
        """Hit the row if an answer is hardly text, or a long one has no mark."""
        marked, rare = usual
        for answer in read.answers:
            if rare and (letters := self._letters(answer)) is not None and not DRAWN.search(read.prompt):
                return MANY, letters
            text = answer.text
            if marked and MARK.search(text) is None and text.count("\n") < 4:
                words = len(text.split())
                if words >= self.words:
                    return FEW, float(words)
        return None

    def _letters(self, answer: Answer) -> float | None:
        """Give the share of letters and digits of an answer that has too few of them."""
        text = answer.text
        if sum(map(len, WORDS.findall(text))) >= self.fewest * len(text):
            return None
        said = "".join(text.split())
        if len(said) < self.least or sum(map(len, WORDS.findall(said))) >= self.fewest * len(said):
            return None
        # Marks of Indic scripts and joiners are part of letters: no symbols are what is below U+0300, or drawn.
        letters = sum(mark.isalnum() or (mark > "\u02ff" and not _drawn(mark)) for mark in said) / len(said)
        return letters if letters < self.fewest and not answer.code else None


def _drawn(mark: str) -> bool:
    return "\u2000" <= mark <= "\u2bff" or mark >= "\U0001f000" or mark == "\ufffd"

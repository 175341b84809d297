"""Rows whose letters were decoded wrongly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from datapruner.cleaning.steps._read import Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOJIBAKE = Reason(
    "mojibake",
    "the answer holds {measure:.0f} sequences of wrongly decoded letters",
    "answer with wrongly decoded letters",
    "answers with wrongly decoded letters",
    way_out="a higher `least` keeps more of them",
)
CUBED = re.compile("Å[²³]")
"""Ångströms, whose signs are a letter of UTF-8, read wrongly, as well."""
LOST = "\ufffd"
"""What a decoder puts for what it could not read."""


@dataclass(frozen=True)
class Mojibake(Rule):
    """Answers with letters that were decoded wrongly, as in ``cafÃ©``; ASCII is never looked at.

    *Published*: the judgement is ftfy's (``ftfy.badness``: sequences of characters that are improbable in text, and
    usual in UTF-8 that was read as something else), and must be borne out by a repair (``ftfy.fix_encoding``), since
    foreign letters between quotation marks are such sequences too. *Ours*: the threshold, and that U+FFFD counts.

    Parameters
    ----------
    least : int
        Sequences from which an answer is hit.
    """

    least: Annotated[int, Ge(1)] = 1
    name: ClassVar[str] = "mojibake"
    reasons: ClassVar[tuple[Reason, ...]] = (MOJIBAKE,)

    def usual(self, rows: Sequence[Read]) -> Callable[[str], int]:
        """Load ftfy."""
        from ftfy import fix_encoding
        from ftfy.badness import badness

        def count(text: str) -> int:
            if text.isascii():
                return 0
            text = CUBED.sub("", text)
            bad = int(badness(text))
            return text.count(LOST) + (bad if bad and fix_encoding(text) != text else 0)

        return count

    def hit(self, read: Read, usual: Callable[[str], int]) -> Hit | None:
        """Hit the row if an answer is bad, and what was asked is not: some tasks are to mend it."""
        for answer in read.answers:
            bad = usual(answer.text)
            if bad >= self.least and not usual(answer.asked):
                return MOJIBAKE, float(bad)
        return None

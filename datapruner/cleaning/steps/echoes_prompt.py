"""Rows whose answer is the prompt."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from datapruner.cleaning.steps._read import Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason
from datapruner.words import words_of

ECHO = Reason(
    "echoes_prompt",
    "the answer echoes the prompt: {measure:.0%} of both is the same",
    "answer that echoes the prompt",
    "answers that echo the prompt",
    way_out="a higher `share` keeps more of them",
)

EDITED = re.compile(
    r"correct|proofread|grammar|spell|edit\b|rewrit|paraphras|translat|repeat|echo|copy|punctuat|format|纠正|翻译|重复|改写",
    re.IGNORECASE,
)
"""What is asked of answers that are the prompt, or nearly."""


@dataclass(frozen=True)
class EchoesPrompt(Rule):
    """Answers that say what was asked once more, and nothing besides.

    *Ours*, after the overlap of n-grams by which copies are told: the Dice coefficient of the word trigrams of an
    answer and of all that was asked before it, with the same first and last words. An answer that takes a part
    of the prompt (a span, a corrected sentence, a repeated question with an answer) lacks the instruction and stays; so
    does one after a system prompt or an earlier turn that speaks of correcting, translating or repeating.

    Parameters
    ----------
    share : float
        Dice coefficient from which an answer is an echo.
    least : int
        Words of an answer that is looked at.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.9
    least: Annotated[int, Ge(3)] = 5
    name: ClassVar[str] = "echoes_prompt"
    reasons: ClassVar[tuple[Reason, ...]] = (ECHO,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if one of its answers is what was asked."""
        del usual
        before = ""
        for answer in read.answers:
            asked = answer.asked
            told, before = before, f"{before}\n{asked}"
            if not 0.5 < len(answer.text) / max(1, len(asked)) < 2 or len(answer.words) < self.least:
                continue
            words = words_of(asked)
            if not set(words[:3]) <= set(answer.words):
                continue
            first, second = _trigrams(words), _trigrams(answer.words)
            dice = 2 * (first & second).total() / (first.total() + second.total())
            if dice < self.share or not _ends(first) <= second.keys() or not _ends(second) <= first.keys():
                continue
            if EDITED.search(told) is None and EDITED.search(read.system) is None:
                return ECHO, dice
        return None


def _ends(trigrams: Counter[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Give those that a text begins and ends with, if each is there once."""
    each = list(trigrams)
    return {each[0], each[-1]}


def _trigrams(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(zip(words, words[1:], words[2:], strict=False))

"""Rows whose answer says the same again and again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from datapruner.cleaning.steps._read import VERSE, Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason
from datapruner.words import words_of

REPEATS = Reason(
    "repeats_itself",
    "the answer repeats itself: {measure:.0%} of its words were said before",
    "answer that repeats itself",
    "answers that repeat themselves",
    way_out="a higher `share` keeps more of them",
)
PERIOD = 40
"""Words of a piece that is said again and again."""
STUCK = 100
"""Characters of one sign, or a few, without an end."""
LONG = 100
"""Words of an answer whose sentences are counted."""
SENTENCE = re.compile(r"(?<=[.!?。！？;；])\s*|\n+|\|")
NUMBERED = re.compile(r"^\W*(?:\d{1,3}[.)、:]|[A-Za-z][.)])?\W*")
REFRAINS = 0.9
"""Share of a program, which has cells and calls by the dozen, and of a song, that must lie in a run."""
SAID = 3, 12
"""Words and letters of a sentence that says something."""


@dataclass(frozen=True)
class RepeatsItself(Rule):
    """Answers that get stuck: a piece is said again and again without a break, or most sentences were said before.

    *Published*: the share of a text that lies in duplicate lines (Gopher, arXiv 2112.11446, table A1; datatrove's
    ``GopherRepetitionFilter``). *Ours*: sentences and items of lists (without their numbers) count as lines do; the
    longest run, in which a piece of up to 40 words follows itself; thresholds far above Gopher's. Repeated n-grams,
    which Gopher counts too, are no sign here: lists whose items begin alike, songs and claims have them. Words are
    compared without case. What repeats must have letters, and sentences with digits do not count, so that grids,
    boards, lists of moves and data (an answer that begins as JSON does) are let be. A text without spaces is read by
    its characters, for runs alone: addresses and patterns share much.

    Parameters
    ----------
    share : float
        Of the words, that lie in the run, or in sentences that were there before.
    times : int
        How often a piece must follow itself to be a run.
    least : int
        Words of an answer that is looked at.
    """

    share: Annotated[float, Ge(0), Le(1)] = 0.5
    times: Annotated[int, Ge(2)] = 4
    least: Annotated[int, Ge(1)] = 12
    name: ClassVar[str] = "repeats_itself"
    reasons: ClassVar[tuple[Reason, ...]] = (REPEATS,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if one of its answers repeats itself."""
        del usual
        for answer in read.answers:
            text, words = answer.text, answer.words
            endless = len(text) > 40 * len(words)
            if endless:
                words = list(text)
            # Half of the words in copies leave no more than this many different ones.
            fewest = (1 - self.share) * len(words) + min(PERIOD, self.share * len(words) / self.times)
            if len(words) < self.least or len(set(words)) > fewest:
                continue
            if text.lstrip()[:1] in ("{", "["):
                continue
            covered = self._run(words, endless)
            if covered < REFRAINS and (answer.code or VERSE.search(answer.asked)):
                continue
            if covered < self.share and not endless and len(words) >= LONG:
                covered = said_before(text)
            if covered >= self.share:
                return REPEATS, covered
        return None

    def _run(self, words: list[str], endless: bool) -> float:
        """Give the share of the words that lie in the longest run, where it says something."""
        seen: dict[str, int] = {}
        numbers = np.fromiter((seen.setdefault(word, len(seen)) for word in words), np.int64, len(words))
        covered, start, step = longest_run(numbers, self.times, least=self.share * len(words))
        letters = sum(map(str.isalpha, "".join(words[start : start + step])))
        says = letters >= max(2, step / 2) or (endless and covered >= STUCK)
        return covered / len(words) if says else 0.0


def longest_run(
    numbers: np.ndarray, times: int = 4, period: int = PERIOD, least: float = 0
) -> tuple[int, int, int]:
    """Find the longest run in which a piece follows itself.

    Parameters
    ----------
    numbers : ndarray, int64, shape (n,)
        Equal where words are.
    times : int
        Fewer repetitions are no run.
    period : int
        Longest piece, in words.
    least : float
        Words of a run that is worth finding; shorter ones may be missed.

    Returns
    -------
    int
        Words of the run; 0 where there is none.
    int
        Where it starts.
    int
        Words of the piece.
    """
    best = (0, 0, 0)
    for step in range(1, min(period, len(numbers) // times) + 1):
        alike = numbers[step:] == numbers[:-step]
        if np.count_nonzero(alike) < max(least, times * step) - step:
            continue
        same = np.concatenate([[False], alike, [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8)))
        if edges.size:
            lengths = edges[1::2] - edges[::2]
            at = int(lengths.argmax())
            covered = int(lengths[at]) + step
            if covered >= times * step and covered > best[0]:
                best = (covered, int(edges[2 * at]), step)
    return best


def said_before(text: str) -> float:
    """Give the share of a text's words that lie in sentences, or items, which were there before, word for word."""
    seen: set[str] = set()
    again = every = 0
    for piece in SENTENCE.split(text):
        words = words_of(NUMBERED.sub("", piece))
        every += len(words)
        said = " ".join(words).rstrip(" .,;:!?。！？；")
        if len(words) < SAID[0] or sum(map(str.isalpha, said)) < SAID[1] or any(map(str.isdigit, said)):
            continue
        if said in seen:
            again += len(words)
        seen.add(said)
    return again / max(1, every)

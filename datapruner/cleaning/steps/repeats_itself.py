"""Rows whose answer says the same again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from datapruner.cleaning.steps._read import Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

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
"""Words of an answer whose n-grams are counted."""


@dataclass(frozen=True)
class RepeatsItself(Rule):
    """Answers that get stuck: a piece is said again and again without a break, or most of the text is a copy.

    *Published*: the share of a text that lies in repeated n-grams (Gopher, arXiv 2112.11446, table A1; datatrove's
    ``GopherRepetitionFilter``; Data-Juicer's ``word_repetition_filter``). *Ours*: the longest run, in which a piece of
    up to 40 words follows itself, and thresholds far above Gopher's, which would drop tables and proofs. Words are
    compared without case. What repeats must have letters, and n-grams with digits do not count, so that grids, boards,
    lists of moves and data (an answer that begins as JSON does) are let be. A text without spaces is read by its
    characters, for runs alone: addresses and patterns share much.

    Parameters
    ----------
    share : float
        Of the words, that lie in the run, or in n-grams that were there before.
    times : int
        How often a piece must follow itself to be a run.
    ngram : int
        Words of an n-gram.
    least : int
        Words of an answer that is looked at.
    """

    share: Annotated[float, Ge(0), Le(1)] = 0.5
    times: Annotated[int, Ge(2)] = 4
    ngram: Annotated[int, Ge(2)] = 8
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
            if len(words) < self.least or len(set(words)) > (1 - self.share) * len(words) + self.ngram:
                continue
            if text.lstrip()[:1] in ("{", "["):
                continue
            covered = self._covered(words, endless)
            if covered / len(words) >= self.share:
                return REPEATS, covered / len(words)
        return None

    def _covered(self, words: list[str], endless: bool) -> int:
        """Count the words that lie in the longest run, or else in n-grams that were there before."""
        seen: dict[str, int] = {}
        numbers = np.fromiter((seen.setdefault(word, len(seen)) for word in words), np.int64, len(words))
        covered, start, step = longest_run(numbers, self.times, least=self.share * len(words))
        letters = sum(map(str.isalpha, "".join(words[start : start + step])))
        if covered / len(words) >= self.share and (
            letters >= max(2, step / 2) or (endless and covered >= STUCK)
        ):
            return covered
        if endless or len(words) < LONG:
            return 0
        digits = np.array([any(map(str.isdigit, word)) for word in seen], dtype=np.bool_)
        return repeated(numbers, self.ngram, ~digits[numbers])


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


def repeated(numbers: np.ndarray, ngram: int, counts: np.ndarray | None = None) -> int:
    """Count the words that lie in an n-gram which was there before.

    Parameters
    ----------
    numbers : ndarray, int64, shape (n,)
        Equal where words are.
    ngram : int
    counts : ndarray, bool, shape (n,), optional
        Words without which an n-gram is none; all by default.
    """
    if len(numbers) < ngram:
        return 0
    given = np.ones(len(numbers), dtype=np.bool_) if counts is None else counts
    whole: np.ndarray = np.all(np.lib.stride_tricks.sliding_window_view(given, ngram), axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(numbers, ngram)
    seen: set[bytes] = set()
    steps = np.zeros(len(numbers) + 1, dtype=np.int64)
    for place, window in enumerate(np.ascontiguousarray(windows)):
        if not whole[place]:
            continue
        key = window.tobytes()
        if key in seen:
            steps[place] += 1
            steps[place + ngram] -= 1
        seen.add(key)
    return int((np.cumsum(steps[:-1]) > 0).sum())

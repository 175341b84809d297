"""Rows whose answer says the same again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from datapruner.cleaning.steps._rule import Hit, Rule, answers
from datapruner.reasons import Reason
from datapruner.words import words_of

if TYPE_CHECKING:
    from datapruner.samples.sample import Sample

REPEATS = Reason(
    "repeats_itself",
    "the answer repeats itself: {measure:.0%} of its words were said before",
    "answer that repeats itself",
    "answers that repeat themselves",
    way_out="a higher `share` keeps more of them",
)
PERIOD = 40
"""Words of a piece that is said again and again."""


@dataclass(frozen=True)
class RepeatsItself(Rule):
    """Answers that get stuck: a piece is said again and again without a break, or most of the text is a copy.

    *Published*: the share of a text that lies in repeated n-grams (Gopher, arXiv 2112.11446, table A1; datatrove's
    ``GopherRepetitionFilter``; Data-Juicer's ``word_repetition_filter``). *Ours*: the longest run, in which a piece of
    up to 40 words follows itself, and thresholds far above Gopher's, which would drop tables and proofs. Words are
    compared without case; digits count as they are, so that a table of numbers does not repeat itself. A run that the
    prompt has too was asked for.

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

    def hit(self, sample: Sample, usual: Any) -> Hit | None:
        """Hit the row if one of its answers repeats itself."""
        del usual
        for text in answers(sample):
            numbers = _numbers(text)
            if len(numbers) < self.least:
                continue
            covered = longest_run(numbers, self.times)
            if covered / len(numbers) < self.share:
                covered = repeated(numbers, self.ngram) if len(numbers) >= 4 * self.ngram else 0
            if covered / len(numbers) >= self.share:
                return REPEATS, covered / len(numbers)
        return None


def _numbers(text: str) -> np.ndarray:
    """Give each word the number of its first occurrence; a text of one endless word is read by its characters."""
    words: list[str] = words_of(text)
    if words and len(text) > 40 * len(words):
        words = list(text)
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(word, len(seen)) for word in words), np.int64, len(words))


def longest_run(numbers: np.ndarray, times: int = 4, period: int = PERIOD) -> int:
    """Count the words of the longest run in which a piece follows itself.

    Parameters
    ----------
    numbers : ndarray, int64, shape (n,)
        Equal where words are.
    times : int
        Fewer repetitions are no run.
    period : int
        Longest piece, in words.

    Returns
    -------
    int
        0 where there is none.
    """
    best = 0
    for step in range(1, min(period, len(numbers) // times) + 1):
        same = np.concatenate([[False], numbers[step:] == numbers[:-step], [False]])
        edges = np.flatnonzero(np.diff(same.astype(np.int8)))
        if edges.size:
            covered = int((edges[1::2] - edges[::2]).max()) + step
            if covered >= times * step:
                best = max(best, covered)
    return best


def repeated(numbers: np.ndarray, ngram: int) -> int:
    """Count the words that lie in an n-gram which was there before."""
    if len(numbers) < ngram:
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(numbers, ngram)
    seen: set[bytes] = set()
    steps = np.zeros(len(numbers) + 1, dtype=np.int64)
    for place, window in enumerate(np.ascontiguousarray(windows)):
        key = window.tobytes()
        if key in seen:
            steps[place] += 1
            steps[place + ngram] -= 1
        seen.add(key)
    return int((np.cumsum(steps[:-1]) > 0).sum())

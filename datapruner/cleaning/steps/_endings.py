"""How an answer would end if it ended as those to prompts like its own do."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.words import spread

if TYPE_CHECKING:
    from datapruner.arrays import Flags, Floats, Ints

FEATURES = 2**15
FEWEST = 40
"""Answers that end so, from which it can be learned."""


@dataclass(frozen=True)
class Expected:
    """A logistic regression on the first and last words of the prompt and the first words of the answer.

    Fitted in two halves, by what the texts hash to, so that no row is judged by what was learned from itself.

    Attributes
    ----------
    weights : tuple of two ndarrays, float64, shape (FEATURES + 1,)
        Of each half, the constant last; None where there is nothing to tell apart.
    share : float
        Of all answers, that end so.
    """

    weights: tuple[Floats, Floats] | None = field(default=None, repr=False)
    share: float = 0.0

    def __call__(self, prompt: str, answer: str) -> float:
        """Give the probability that an answer to such a prompt, beginning so, ends so."""
        if self.weights is None:
            return self.share
        other = self.weights[1 - _half(prompt, answer)]
        logit = float(other[_hashed(prompt, answer)].sum() + other[-1])
        return 1 / (1 + math.exp(-max(-700.0, logit)))


def learned(pairs: Sequence[tuple[str, str]], ended: Flags) -> Expected:
    """Learn which answers end so.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Prompts and answers.
    ended : ndarray, bool, shape (n,)
        Which of the answers have that end.
    """
    half = np.array([_half(*pair) for pair in pairs], dtype=np.int64)
    counts = [int(ended[half == side].sum()) for side in (0, 1)]
    rest = [int((half == side).sum()) - count for side, count in enumerate(counts)]
    share = float(ended.mean()) if sum(counts) >= FEWEST else 0.0
    if min(counts) < FEWEST // 2 or min(rest) < 2:
        return Expected(share=share)
    matrix = _matrix(pairs)
    return Expected((_fit(matrix, ended, half == 0), _fit(matrix, ended, half == 1)), share)


WORD = r"[^\W_]+(?:['’-][^\W_]+)*"
WORDS = re.compile(WORD)
LAST = re.compile(rf"({WORD})[\"'”’)\]*_ ]{{0,3}}(?:[.!?。！？]|\n|$)")
MOST, HEAD = 2000, 3000
"""Texts that are counted, and characters of each."""
RARER = 4
"""So many times as rarely as words in general a word must be last."""


@dataclass(frozen=True)
class LastWords:
    """Words that a set has often and never, or hardly ever, at the end of a sentence or a line.

    Attributes
    ----------
    texts : sequence of str
        Counted when it is first asked; none where no such word is known.
    """

    texts: Sequence[str] = field(default=(), repr=False)

    @classmethod
    def of(cls, texts: Sequence[str]) -> LastWords:
        """Take the beginnings of some texts."""
        return cls([text[:HEAD] for text in texts[:: 1 + len(texts) // MOST]])

    @cached_property
    def _counts(self) -> tuple[Counter[str], Counter[str], float]:
        every: Counter[str] = Counter()
        last: Counter[str] = Counter()
        for text in self.texts:
            head = spread(text.lower())
            every.update(WORDS.findall(head))
            last.update(LAST.findall(head))
        return every, last, last.total() / max(1, every.total())

    def never(self, line: str) -> bool:
        """Whether a line ends in a word that stands in the middle; the line's own end may have been counted."""
        every, last, rate = self._counts
        words = WORDS.findall(spread(line[-100:].lower()))
        return bool(words) and max(1, last[words[-1]]) * RARER <= rate * (every[words[-1]] + 1)


def _matrix(pairs: Sequence[tuple[str, str]]) -> Any:
    from scipy.sparse import csr_matrix

    rows = [_hashed(*pair) for pair in pairs]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    places = np.concatenate(rows)
    return csr_matrix((np.ones(len(places)), places, starts), shape=(len(rows), FEATURES))


def _fit(matrix: Any, ended: Flags, chosen: Flags) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=3, solver="liblinear", random_state=0).fit(matrix[chosen], ended[chosen])
    weights: Floats = np.append(model.coef_[0], model.intercept_)
    return weights


def _half(prompt: str, answer: str) -> int:
    return zlib.crc32(f"{prompt[-500:]}\0{answer[:500]}".encode("utf-8", "replace")) & 1


def _hashed(prompt: str, answer: str) -> Ints:
    names = {zlib.crc32(name.encode("utf-8", "replace")) % FEATURES for name in _features(prompt, answer)}
    return np.fromiter(names, np.int64, len(names))


def _features(prompt: str, answer: str) -> Iterator[str]:
    first, last = prompt[:300].lower().split()[:10], prompt[-300:].lower().split()[-10:]
    for place, words in (("p", first), ("q", last), ("a", answer[:200].split()[:6])):
        yield from (f"{place} {word}" for word in words)
        yield from (f"{place} {word} {other}" for word, other in pairwise(words))
    yield f"length {min(len(prompt) // 100, 5)}"
    yield f"lines {chr(10) in answer}"

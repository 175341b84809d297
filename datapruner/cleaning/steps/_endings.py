"""How an answer would end if it ended as those to prompts like its own do."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

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


def learned(pairs: Sequence[tuple[str, str]], targets: Iterable[Flags]) -> list[Expected]:
    """Learn which answers end so, for each of several ends.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Prompts and answers.
    targets : iterable of ndarray, bool, shape (n,)
        Which of the answers have that end.
    """
    half = np.array([_half(*pair) for pair in pairs], dtype=np.int64)
    matrix: Any = None
    found = []
    for ended in targets:
        counts = [int(ended[half == side].sum()) for side in (0, 1)]
        rest = [int((half == side).sum()) - count for side, count in enumerate(counts)]
        share = float(ended.mean()) if sum(counts) >= FEWEST else 0.0
        if min(counts) < FEWEST // 2 or min(rest) < 2:
            found.append(Expected(share=share))
            continue
        matrix = _matrix(pairs) if matrix is None else matrix
        found.append(Expected((_fit(matrix, ended, half == 0), _fit(matrix, ended, half == 1)), share))
    return found


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

"""How well answers fit their prompts, among those of like rows, by vectors and by words; no language model reads them.

*Ours*. A row is compared with rows of its own kind (its cluster by the prompts' vectors): is its answer nearer to its
prompt, and does it share more rare words and numbers with it, than other prompts' and other answers do; and is it like
the answers to the prompts nearest to its own. The same is asked of decoys: the prompt with another row's answer, of the
same broad kind or of any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.words import bare_words, numbers_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from datapruner.geometry.blocks import Matrix

MOST, FEWEST = 256, 32
"""Rows that are compared with each other; a larger cluster is parted at random, smaller ones are joined."""
NEIGHBOURS = 8
DECOYS = 2
"""Of the same broad kind, and of any."""

Reals = NDArray[np.float32]


class Fit(NamedTuple):
    """What is known of how answers fit.

    Attributes
    ----------
    own : ndarray, float32, shape (n, k)
        Of each row. The last ``len(ROW)`` columns are its lengths and the like, all others are the higher the better it
        fits.
    decoys : ndarray, float32, shape (2, n, k)
        Of its prompt with another row's answer.
    better : ndarray, float64, shape (n,)
        Share of like rows' prompts that the answer fits better than its own, by vectors and by words: their mean.
    """

    own: Reals
    decoys: Reals
    better: Floats


ROW = (
    "the answers' likeness",
    "length of the answer",
    "length of the prompt",
    "rows compared",
    "how near the block's answers are to their prompts",
    "how many words they share",
    "how like answers to near prompts are",
)
"""What is known of a row besides how it fits."""
NEARER, SHARED, LIKE = 1, 6, 21
TELLING = [NEARER, SHARED, LIKE]
"""Columns, in standard deviations: of the first, the second and the last measure."""


def rising(columns: int) -> Ints:
    """Tell which numbers may only speak for a row: 1 for those, 0 for what is known besides."""
    return np.repeat([1, 0], [columns - len(ROW), len(ROW)])


def answer_fit(
    prompts: Iterable[str],
    answers: Iterable[str],
    prompt_vectors: Matrix,
    answer_vectors: Matrix,
    kinds: Ints,
    broad: Ints,
    seed: int = 0,
) -> Fit:
    """Measure how every answer fits its prompt, and how decoys do.

    Parameters
    ----------
    prompts, answers : iterable of str, length n
        Read once.
    prompt_vectors, answer_vectors : Matrix, shape (n, d)
    kinds, broad : ndarray, int64, shape (n,)
        Clusters of the prompts: rows that are compared, and from which answers of decoys come.
    seed : int

    Notes
    -----
    Rows are compared in blocks of at most 256, all pairs of them, so that time and memory grow as the rows do.
    """
    rng = np.random.default_rng(seed)
    words = _Words.of(list(prompts), list(answers))
    n = len(kinds)
    others = np.stack([_drawn(broad, rng), rng.integers(n, size=n)])
    own: Reals | None = None
    for rows in _blocks(kinds, rng):
        block = _Block(rows, prompt_vectors, answer_vectors, words)
        tried = [block.fit(rows), *(block.fit(other) for other in others[:, rows])]
        # What tells rows of this kind apart, if anything does, is the same for all of them.
        usual = np.tile(np.median(tried[0][:, TELLING], axis=0), (len(rows), 1))
        tried = [np.concatenate([of, usual], axis=1) for of in tried]
        if own is None:
            own = np.zeros((n, tried[0].shape[1]), dtype=np.float32)
            decoys = np.zeros((DECOYS, *own.shape), dtype=np.float32)
            better = np.zeros(n)
        own[rows], decoys[:, rows] = tried[0], np.stack(tried[1:])
        better[rows] = 1 - (tried[0][:, NEARER + 1] + tried[0][:, SHARED + 1]) / 2
    if own is None:
        return Fit(np.zeros((0, 1), np.float32), np.zeros((DECOYS, 0, 1), np.float32), np.zeros(0))
    return Fit(own, decoys, better)


def _drawn(groups: Ints, rng: np.random.Generator) -> Ints:
    """Draw a row of the same group for every row."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    return np.asarray(order[starts[groups] + (rng.random(len(groups)) * sizes[groups]).astype(np.int64)])


def _blocks(kinds: Ints, rng: np.random.Generator) -> list[Ints]:
    """Part the rows into blocks of one kind each, and those of small kinds into joined ones."""
    found, left = [], [np.empty(0, dtype=np.int64)]
    order = np.argsort(kinds, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
        if len(members) < FEWEST:
            left.append(members)
        else:
            found.append(rng.permutation(members))
    if sum(map(len, left)) >= 3:
        found.append(np.concatenate(left))
    return [part for rows in found for part in np.array_split(rows, -(-len(rows) // MOST))]


class _Words(NamedTuple):
    """Which words and numbers a text has, and what each is worth."""

    prompts: csr_matrix
    answers: csr_matrix
    rarity: Reals
    numbers: Reals
    lengths: Reals

    @classmethod
    def of(cls, prompts: list[str], answers: list[str]) -> _Words:
        from scipy.sparse import csr_matrix

        known: dict[str, int] = {}
        n = len(prompts)

        def read(texts: list[str]) -> tuple[NDArray[np.int32], Ints, Reals]:
            held, starts, lengths = (
                [np.empty(0, np.int32)],
                np.zeros(n + 1, np.int64),
                np.zeros(n, np.float32),
            )
            for row, text in enumerate(texts):
                words = bare_words(text)
                # A number is one word by its digits, and another by being one: `#12`. In the text's order, since a
                # set has another in every process, and sums would have other last digits.
                figures = (f"#{number.replace(',', '')}" for number in numbers_of(text))
                different = dict.fromkeys((*words, *figures))
                held.append(
                    np.array(sorted(known.setdefault(word, len(known)) for word in different), dtype=np.int32)
                )
                starts[row + 1], lengths[row] = len(different), np.log1p(len(words))
            return np.concatenate(held), np.cumsum(starts), lengths

        (asked, of_asked, long), (said, of_said, longer) = read(prompts), read(answers)
        shape = n, len(known)
        sides = [
            csr_matrix((np.ones(len(held), np.float32), held, starts), shape)
            for held, starts in ((asked, of_asked), (said, of_said))
        ]
        rows = np.bincount(asked, minlength=len(known)) + np.bincount(said, minlength=len(known))
        rarity = np.log(2 * n / np.maximum(rows, 1)).astype(np.float32)
        numbers = np.array([word.startswith("#") for word in known], dtype=np.float32)
        return cls(sides[0], sides[1], rarity, numbers, np.stack([longer, long]))


class _Block:
    """Rows that are compared with each other."""

    def __init__(self, rows: Ints, prompts: Matrix, answers: Matrix, words: _Words) -> None:
        self.rows, self.answers, self.words = rows, answers, words
        self.asked = _unit(prompts, rows)
        self.said = _unit(answers, rows)
        near = self.asked @ self.asked.T
        self.near = near
        sides = words.prompts[rows]
        common = np.asarray(sides.sum(axis=0)).ravel()
        worth = np.sqrt(np.maximum(words.rarity, 0) * np.log((len(rows) + 1) / (common + 1)))
        self.weights: Reals = worth.astype(np.float32)
        self.weighed = sides.multiply(self.weights[None]).tocsr()
        self.numbered = sides.multiply(words.numbers[None]).tocsr()
        self.own = self._likeness(rows, self.said)

    def fit(self, others: Ints) -> Reals:
        """Measure how each row's prompt fits the answer of another row, or its own; float32 (m, k)."""
        said = self.said if others is self.rows else _unit(self.answers, others)
        tried = self.own if others is self.rows else self._likeness(others, said)
        m = len(self.rows)
        place = np.arange(m)
        # Neither the row itself nor the one whose answer it is says anything of how it fits.
        out = others[:, None] == self.rows[None]
        out[place, place] = True
        found: list[Reals] = []
        for theirs, mine in zip(tried, self.own, strict=True):
            value = theirs[place, place]
            found += [value, *_against(theirs.T, value, out), *_against(mine, value, out)]
        likeness = said @ self.said.T
        near = np.where(out, -np.inf, self.near)
        nearest = np.argpartition(-near, min(NEIGHBOURS, m - 1), axis=1)[:, :NEIGHBOURS]
        there = np.take_along_axis(~out, nearest, axis=1)
        theirs = np.where(there, np.take_along_axis(likeness, nearest, axis=1), np.nan)
        mean, spread = _moments(likeness, ~out)
        for of in (_or_zero(np.nanmean, theirs), _or_zero(np.nanmax, theirs)):
            found += [of, (of - mean) / spread]
        lengths = self.words.lengths[0][others], self.words.lengths[1][self.rows]
        return np.stack([*found, mean, *lengths, np.full(m, np.log(m))], axis=1).astype(np.float32)

    def _likeness(self, others: Ints, said: Reals) -> list[Reals]:
        """Compare all prompts of the block with some answers: by vectors, by words, by their share, and by numbers."""
        answers = self.words.answers[others]
        shared = np.asarray((self.weighed @ answers.T).todense())
        total = np.asarray(answers @ self.weights).ravel()
        numbers = np.asarray((self.numbered @ answers.T).todense())
        held = np.asarray(answers @ self.words.numbers).ravel()
        return [self.asked @ said.T, shared, shared / (total + 1), numbers / (held + 1)]


def _unit(vectors: Matrix, rows: Ints) -> Reals:
    from datapruner.geometry.blocks import gather

    some = np.array(gather(vectors, rows), dtype=np.float32)
    lengths = np.sqrt((some * some).sum(axis=1, keepdims=True))
    return np.asarray(some / np.where(lengths > 0, lengths, 1))


def _against(others: Reals, value: Reals, out: Flags) -> tuple[Reals, Reals]:
    """Compare values with others of their line: in standard deviations above the mean, and the share below."""
    mean, spread = _moments(others, ~out)
    below = np.where(others < value[:, None], 1.0, np.where(others == value[:, None], 0.5, 0.0))
    share = (below * ~out).sum(axis=1) / np.maximum((~out).sum(axis=1), 1)
    return (value - mean) / spread, share.astype(np.float32)


def _moments(values: Reals, there: Flags) -> tuple[Reals, Reals]:
    count = np.maximum(there.sum(axis=1), 1)
    mean = (values * there).sum(axis=1) / count
    square = (values * values * there).sum(axis=1) / count
    return mean, np.sqrt(np.maximum(square - mean * mean, 0)) + np.float32(1e-3)


def _or_zero(reduce: Callable[..., Reals], values: Reals) -> Reals:
    """Reduce what is there, and give 0 where nothing is."""
    some = np.asarray(np.isfinite(values).any(axis=1))
    return np.where(some, reduce(np.where(some[:, None], values, 0.0), axis=1), 0.0).astype(np.float32)

"""What a cleaning step hands on: the rows it drops, what each refers to, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from datapruner.arrays import Floats, Ints
from datapruner.reasons import SENTENCE, Reason


@dataclass(frozen=True, eq=False)
class Vetoes:
    """Rows that a cleaning step drops before any score is looked at.

    Parameters
    ----------
    reason
        Why, in a code and in words.
    rows
        int64 [m], strictly ascending: positions in the source dataset.
    others
        int64 [m]: the kept row (or whatever else the reason refers to) of each, -1 where there is none.
    measures
        float64 [m]: Jaccard similarity, cosine or share; 1.0 for an exact duplicate.
    texts
        What ``others`` count, where these are no rows of the source: the texts of the test rows.
    """

    reason: Reason
    rows: Ints
    others: Ints
    measures: Floats
    texts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Fix the dtypes and refuse arrays that do not belong together."""
        for name, dtype in (("rows", np.int64), ("others", np.int64), ("measures", np.float64)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.rows.ndim != 1 or not self.rows.shape == self.others.shape == self.measures.shape:
            raise ValueError(
                f"rows {self.rows.shape}, others {self.others.shape} and measures {self.measures.shape} "
                "must be one-dimensional and of one length."
            )
        if self.rows.size and (self.rows[0] < 0 or np.any(np.diff(self.rows) <= 0)):
            raise ValueError("Vetoed rows must be unique, ascending and not negative.")
        if not SENTENCE.fullmatch(self.reason.sentence):
            raise ValueError(f"the sentence '{self.reason.sentence}' has fields that nobody filled.")

    @property
    def kind(self) -> str:
        """The code of the reason."""
        return self.reason.code

    def __len__(self) -> int:
        """Return the number of dropped rows."""
        return int(self.rows.size)

    def reasons(self) -> list[str]:
        """Return one sentence for every dropped row, in the order of ``rows``."""
        return list(map(self.said, range(len(self))))

    def said(self, place: int) -> str:
        """Say why one of ``rows`` is dropped."""
        return self.reason.said(int(self.others[place]), float(self.measures[place]))


def drops(
    reason: Reason,
    rows: ArrayLike,
    others: ArrayLike | None = None,
    measures: ArrayLike | None = None,
    texts: Sequence[str] | None = None,
) -> Vetoes:
    """Drop rows for a reason, in whatever order they are given.

    Parameters
    ----------
    reason : Reason
    rows : array-like of int, shape (m,)
        Positions in the source, each once.
    others : array-like of int, shape (m,), optional
        What each is dropped for; -1 by default: nothing.
    measures : array-like of float, shape (m,), optional
        How sure that is; 0 by default.
    texts : sequence of str, optional
        What ``others`` count, where these are no rows of the source.
    """
    array = np.asarray(rows, dtype=np.int64)
    order = np.argsort(array, kind="stable")
    given = (np.full(array.shape, -1), others), (np.zeros(array.shape), measures)
    other, measure = (np.asarray(empty if held is None else held)[order] for empty, held in given)
    return Vetoes(reason, array[order], other, measure, texts)


def collected(reason: Reason, dropped: Sequence[tuple[int, int, float]]) -> Vetoes:
    """Collect (row, other, measure) in row order."""
    rows, others, measures = ([held[place] for held in dropped] for place in range(3))
    return drops(reason, rows, others, measures)

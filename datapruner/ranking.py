"""What a method thinks of every row: the type between scorers, selectors and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.ragged import Ragged

RESERVED = frozenset({"index", "kept", "reason", "score"})
"""Columns of ``selection.parquet`` that are not a scorer's to name."""


DRAW = "random draw"
"""What a score is called that was drawn."""


class Measure(NamedTuple):
    """The quantity that a score is, so that it is shown with its own sign.

    Attributes
    ----------
    name : str
        A column of the ranking, ``score``, or ``random draw``.
    high : bool
        Whether high values are kept; of low ones the score is the negative.
    """

    name: str = "score"
    high: bool = True

    def shown(self, score: float) -> float:
        """Turn a score into the quantity; 0 has no sign."""
        return score if self.high else 0.0 - score

    def beyond(self, better: bool) -> str:
        """Say ``at or above`` or ``at or below`` for what is better, or worse, than a number."""
        return "at or above" if better == self.high else "at or below"


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a method thinks of every row.

    Parameters
    ----------
    values : ndarray, float64, shape (n,)
        Higher = keep. Finite, except NaN where a row was vetoed before scoring.
    groups : ndarray, int64, shape (n,), optional
        Number of each row's group in [0, k); -1 only where a row was vetoed before scoring.
    group_weights : ndarray, float64, shape (k,), optional
        How the method shares a budget over its groups; not necessarily summing to 1.
    columns : mapping
        Named arrays of shape (n,) that explain a value to a person.
    state : mapping
        What a selector may need: arrays of any shape, or :class:`datapruner.signals.Ragged` of n rows.
    """

    values: Floats
    groups: Ints | None = None
    group_weights: Floats | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    state: Mapping[str, NDArray[Any] | Ragged] = field(default_factory=dict)

    @cached_property
    def measure(self) -> Measure:
        """The column that the values are, as such or with the sign turned; ``score`` where they are none.

        A scorer that keeps low perplexities gives -log PPL as values and log PPL as a column: a person is shown 3.2,
        of which low is kept, and never -3.2. It is seen from the numbers, so that plug-ins and saved scores have it.
        """
        rows = np.flatnonzero(np.isfinite(self.values))
        values = self.values[rows]
        if not rows.size or values.min() == values.max():
            return Measure()
        for name, column in self.columns.items():
            # One row first: most columns differ there, and no copy is made of them.
            if column.dtype.kind not in "fiu" or abs(float(column[rows[0]])) != abs(float(values[0])):
                continue
            held = column[rows]
            for high in (True, False):
                if np.array_equal(held, values if high else -values):
                    return Measure(name, high)
        return Measure()

    def scatter(self, rows: Ints, n: int) -> Ranking:
        """Place a ranking of some rows into the whole dataset: NaN, -1 or empty elsewhere."""
        if len(rows) == n:
            return self

        def place(values: NDArray[Any]) -> NDArray[Any]:
            if values.dtype.kind == "f":
                out = np.full(n, np.nan, dtype=values.dtype)
            elif values.dtype.kind in "iu":
                out = np.full(n, -1, dtype=np.int64)
            else:
                out = np.zeros(n, dtype=values.dtype)
            out[rows] = values
            return out

        return Ranking(
            values=place(self.values),
            groups=None if self.groups is None else place(self.groups),
            group_weights=self.group_weights,
            columns={name: place(column) for name, column in self.columns.items()},
            state={
                name: held.scatter(rows, n) if isinstance(held, Ragged) else held
                for name, held in self.state.items()
            },
        )

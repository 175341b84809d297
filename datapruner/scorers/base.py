"""The scorer's contract: signals in, a ranking out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.parameters import check_parameters
from datapruner.ragged import Ragged

if TYPE_CHECKING:
    from datapruner.selection.selectors import Selector
    from datapruner.signals import Signals


RESERVED = frozenset({"index", "kept", "reason", "score"})
"""Columns of ``selection.parquet`` that are not a scorer's to name."""


class Measure(NamedTuple):
    """The quantity that a score is, so that it is shown with its own sign.

    Attributes
    ----------
    name : str
        A column of the ranking, or ``score``.
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

    values: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None
    group_weights: NDArray[np.float64] | None = None
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

    def scatter(self, rows: NDArray[np.int64], n: int) -> Ranking:
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


@dataclass(frozen=True)
class Scorer(ABC):
    """Base of all scorers: a dataclass whose fields are the method's parameters.

    A subclass sets ``name`` and ``needs`` and writes ``_score``; :meth:`score` checks what it gives.

    Attributes
    ----------
    name : str
        What users write; also the entry point's name of a plug-in.
    needs : frozenset of str
        Signals it reads, from :data:`datapruner.signals.KNOWN`.
    paper : str
        Where the method comes from.
    provenance : str
        What in it is published, derived, ours.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    paper: ClassVar[str] = ""
    provenance: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the parameters' types; a subclass that checks more calls this first."""
        check_parameters(self)

    @abstractmethod
    def _score(self, signals: Signals) -> Ranking:
        """Compute the ranking of ``signals.num_rows`` rows."""

    @property
    def requires(self) -> frozenset[str]:
        """The signals that it reads with these parameters: ``needs`` unless overridden."""
        return self.needs

    @property
    def promises(self) -> frozenset[str]:
        """What holds beyond the contract; a scorer that can promise less overrides this and says so.

        ``permutation``: permuted rows get the same values, permuted. ``duplicates``: equal rows get equal values.
        """
        return frozenset({"permutation", "duplicates"})

    def selector(self) -> Selector:
        """Give the selector that the method was published with; top-k unless overridden."""
        from datapruner.selection.selectors import TopK

        return TopK()

    def score(self, signals: Signals) -> Ranking:
        """Rank every row of ``signals``.

        Parameters
        ----------
        signals : Signals
            Holds at least ``needs``.

        Returns
        -------
        Ranking
            Of ``signals.num_rows`` rows.

        Raises
        ------
        DataPrunerError
            A needed signal is missing or holds NaN, or the method gave something that is no ranking.
        """
        for need in sorted(self.requires):
            _refuse_nan(need, signals)
        ranking = self._score(signals)
        if not isinstance(ranking, Ranking):
            raise DataPrunerError(
                f"the scorer '{self.name}' gave {type(ranking).__name__}; `_score` must return "
                "datapruner.Ranking(values)"
            )
        self._check(ranking, signals)
        return ranking

    def parameters(self) -> dict[str, Any]:
        """Give the parameters by name, as they go into a recipe."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}

    def _check(self, ranking: Ranking, signals: Signals) -> None:
        n, values, groups = signals.num_rows, ranking.values, ranking.groups
        if values.shape != (n,) or values.dtype != np.float64:
            raise DataPrunerError(
                f"the scorer '{self.name}' gave values of shape {values.shape} and dtype {values.dtype}; float64 of "
                f"shape ({n},) is needed"
            )
        bad = ~np.isfinite(values)
        if bad.any():
            row = signals.source_row(int(np.argmax(bad)))
            raise DataPrunerError(f"the scorer '{self.name}' gave no finite value for row {row}")
        for name, column in [("groups", groups), *ranking.columns.items()]:
            if name in RESERVED:
                raise DataPrunerError(f"the scorer '{self.name}' must not name a column '{name}'")
            if column is not None and column.shape != (n,):
                raise DataPrunerError(
                    f"the scorer '{self.name}' gave a column '{name}' of shape {column.shape}"
                )
        if ranking.group_weights is not None and groups is None:
            raise DataPrunerError(f"the scorer '{self.name}' gave group weights without groups")
        if groups is not None and n:
            k = int(groups.max()) + 1 if ranking.group_weights is None else len(ranking.group_weights)
            if groups.min() < 0 or groups.max() >= k:
                raise DataPrunerError(
                    f"the scorer '{self.name}' gave groups from {groups.min()} to {groups.max()}; they must lie in "
                    f"[0, {k})"
                )


def _refuse_nan(name: str, signals: Signals) -> None:
    """Refuse NaN in a signal that is one number a row or a token; matrices are checked where they are first read."""
    signal = signals[name]
    if isinstance(signal, Ragged):
        bad = ~np.isfinite(signal.values)
        if bad.any():
            row = int(np.searchsorted(signal.offsets, int(np.argmax(bad)), side="right")) - 1
            raise DataPrunerError(f"the signal '{name}' is not finite in row {signals.source_row(row)}")
        return
    if isinstance(signal, np.ndarray) and signal.ndim == 1 and signal.dtype.kind == "f":
        bad = ~np.isfinite(signal)
        if bad.any():
            raise DataPrunerError(
                f"the signal '{name}' is not finite in row {signals.source_row(int(np.argmax(bad)))}"
            )

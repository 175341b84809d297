"""The scorer's contract: signals in, a ranking out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.errors import DataPrunerError, RowError
from datapruner.parameters import Parameters
from datapruner.ragged import Ragged
from datapruner.ranking import RESERVED, Measure, Ranking

__all__ = ["RESERVED", "Measure", "Ranking", "Scorer"]

if TYPE_CHECKING:
    from datapruner.selection.selector import Selector
    from datapruner.signals import Signals


@dataclass(frozen=True)
class Scorer(Parameters, ABC):
    """Base of all scorers: a dataclass whose fields are the method's parameters.

    A subclass sets ``name`` and ``needs`` and writes ``_score``; :meth:`score` checks what it gives.

    Attributes
    ----------
    name : str
        What users write; also the entry point's name of a plug-in.
    needs : frozenset of str
        Signals it reads, from :func:`datapruner.signals.plan.known_signals`.
    holds : frozenset of str, optional
        What its ranking may hold for a selector: names of columns and of state, ``groups`` for groups with weights;
        ``*`` stands for any letters. A selector that reads anything else is refused before a model runs. None, as in
        a plug-in that does not say: nobody knows before it has ranked.
    paper : str
        Where the method comes from.
    provenance : str
        What in it is published, derived, ours.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    holds: ClassVar[frozenset[str] | None] = None
    paper: ClassVar[str] = ""
    provenance: ClassVar[str] = ""

    @abstractmethod
    def _score(self, signals: Signals) -> Ranking:
        """Compute the ranking of ``signals.num_rows`` rows."""

    @property
    def requires(self) -> frozenset[str]:
        """The signals that it reads with these parameters: ``needs`` unless overridden."""
        return self.needs

    @property
    def offers(self) -> frozenset[str] | None:
        """What its ranking may hold with these parameters: ``holds`` unless overridden."""
        return self.holds

    @property
    def promises(self) -> frozenset[str]:
        """What holds beyond the contract; a scorer that can promise less overrides this and says so.

        ``permutation``: permuted rows get the same values, permuted. ``duplicates``: equal rows get equal values.
        """
        return frozenset({"permutation", "duplicates"})

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random, so that they order rows and say nothing of them."""
        return False

    def selector(self) -> Selector:
        """Give the selector that the method was published with; top-k unless overridden."""
        from datapruner.selection.selectors.topk import TopK

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
            raise RowError(f"the scorer '{self.name}' gave no finite value for row {row}", row)
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
    elif isinstance(signal, np.ndarray) and signal.ndim == 1 and signal.dtype.kind == "f":
        bad = ~np.isfinite(signal)
    else:
        return
    if bad.any():
        place = int(np.argmax(bad))
        if isinstance(signal, Ragged):
            place = int(np.searchsorted(signal.offsets, place, side="right")) - 1
        row = signals.source_row(place)
        raise RowError(f"the signal '{name}' is not finite in row {row}", row)

"""What was compared: what every scorer keeps for every budget, and how it ranks the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.ranks import average_ranks, rank_correlation

if TYPE_CHECKING:
    from datapruner.budget import Budget
    from datapruner.comparison.diversity import Diversity
    from datapruner.scores import Scores, Selection
    from datapruner.stability.result import Stability


@dataclass(frozen=True, eq=False)
class AtBudget:
    """What every scorer keeps for one budget.

    Attributes
    ----------
    budget : Budget
    selections : mapping
        Scorer's name -> its selection.
    overlap : ndarray, float64, shape (s, s)
        Jaccard index of the rows that two scorers keep.
    chance : ndarray, float64, shape (s, s)
        The Jaccard index to be expected of two independent random selections of as many rows as they keep: for a
        budget in rows the same everywhere, for one in tokens not.
    diversity : mapping
        Scorer's name, or none for all rows -> how diverse what it keeps is; empty where no scorer read vectors.
    """

    budget: Budget
    selections: Mapping[str, Selection]
    overlap: Floats
    chance: Floats
    diversity: Mapping[str, Diversity] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The budget in a few words, as the tables name it."""
        return self.budget.describe()


@dataclass(frozen=True, eq=False)
class Compared:
    """Selections by several scorers from the same scores, for one budget or several.

    Attributes
    ----------
    budgets : tuple of AtBudget
        In the order given; ``selections``, ``overlap`` and ``chance`` are those of the first.
    asked : tuple of str
        The scorers but the baselines ``random`` and ``length``.
    by : tuple of str
        Columns whose values are groups; the label's among them, where the layout has one.
    left_out : mapping
        Of ``scorers="all"`` those that could not run -> why.
    stability : Stability, optional
        What moves each of the selections for the first budget.
    """

    budgets: tuple[AtBudget, ...]
    asked: tuple[str, ...]
    by: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    stability: Stability | None = None

    def __repr__(self) -> str:
        """Name the scorers."""
        return f"{type(self).__name__}({', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """The scorers' names, in the order of every matrix."""
        return list(self.selections)

    @property
    def selections(self) -> Mapping[str, Selection]:
        """Scorer's name -> its selection for the first budget; they all share one ``scores``."""
        return self.budgets[0].selections

    @property
    def scores(self) -> Scores:
        """What all selections were made from."""
        return next(iter(self.selections.values())).scores

    @property
    def overlap(self) -> Floats:
        """Jaccard index of the rows that two scorers keep for the first budget; float64 (s, s)."""
        return self.budgets[0].overlap

    @property
    def chance(self) -> Floats:
        """What of it is to be expected of random selections; float64 (s, s)."""
        return self.budgets[0].chance

    @property
    def every(self) -> list[Selection]:
        """All selections, budget by budget."""
        return [selection for at in self.budgets for selection in at.selections.values()]

    @cached_property
    def rows(self) -> Ints:
        """Source positions of the rows that cleaning left, ascending; int64 (m,)."""
        return np.flatnonzero(np.isfinite(next(iter(self.selections.values())).values))

    @cached_property
    def ranks(self) -> Mapping[str, Floats]:
        """Every scorer's percentile ranks: (average rank - 0.5) / m, high for what it keeps; float64 (n,).

        In (0, 1); NaN where a row was dropped before scoring.
        """
        out = {}
        for name, selection in self.selections.items():
            out[name] = np.full(len(selection.kept), np.nan)
            out[name][self.rows] = (average_ranks(selection.values[self.rows]) - 0.5) / len(self.rows)
        return out

    @cached_property
    def correlation(self) -> Floats:
        """Spearman correlation of the scores; NaN where a scorer gave all rows the same; float64 (s, s)."""
        return rank_correlation([self.ranks[name][self.rows] for name in self.names])

    @cached_property
    def spread(self) -> Floats:
        """Standard deviation of a row's percentile ranks over the scorers asked for; float64 (n,), NaN where dropped.

        *Ours.* The baselines are left out. At most 0.5, where one half of the scorers puts a row first and the other
        half last; 0 everywhere where fewer than two scorers were asked for. Ranks do not see how a scorer shares its
        budget over groups, so two scorers may rank a row alike and only one of them keep it.
        """
        held = [self.ranks[name] for name in self.asked] or [0.5 * self.ranks[self.names[0]]]
        found: Floats = np.std(held, axis=0)
        return found

    def at(self, budget: int = 0) -> AtBudget:
        """Give what was kept for one of the budgets, by its position.

        Raises
        ------
        DataPrunerError
            There is none.
        """
        if not 0 <= budget < len(self.budgets):
            held = ", ".join(f"{number}: {at.label}" for number, at in enumerate(self.budgets))
            raise DataPrunerError(
                f"there is no budget {budget}; a budget is a position, and there are {held}"
            )
        return self.budgets[budget]

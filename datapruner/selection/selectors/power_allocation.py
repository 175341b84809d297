"""Shares of the budget by a power of the groups' sizes, and in every group the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.selection.allocation import allocate, power_weights
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, best_first, take
from datapruner.selection.selectors.group_quota import told


@dataclass(frozen=True)
class PowerAllocation(Selector):
    """Share the budget over the ranking's groups by their sizes to a power, then keep the best of each group.

    *Published*: power allocation of stratified samples (Bankier 1988, The American Statistician 42, 174-177). *Ours*: a
    group's size is what it holds of the budget's currency, rows or supervised tokens, among the rows that cleaning
    left; one that holds less than its share gives the rest to the others, by the same rule. The groups of a budget's
    column share it by the same power, those without a quota.

    Parameters
    ----------
    power : float
        0 for equal shares, 1 for shares in proportion to size.
    """

    power: float = 0.5
    name: ClassVar[str] = "power_allocation"
    needs_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.power <= 1:
            raise DataPrunerError(f"power_allocation: power must lie between 0 and 1, not {self.power}")

    @property
    def group_power(self) -> float:
        """Its power."""
        return self.power

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        assert ranking.groups is not None
        values = ranking.values[portion.rows]
        if not len(values):
            return Choice(np.zeros(0, np.bool_), np.zeros(0, np.int64), [])
        numbers, groups = np.unique(ranking.groups[portion.rows], return_inverse=True)
        sizes = np.bincount(groups, portion.costs).astype(np.int64)
        names = [f"cluster {number}" for number in numbers]
        budget = min(portion.budget, int(sizes.sum()))
        shares = allocate(
            power_weights(sizes, self.power), sizes, budget, projection="proportional", names=names
        )
        kept = take(best_first(values), portion.costs, shares, groups)
        if len(names) == 1 and portion.name:  # the column's groups are the ranking's
            return Choice(kept, 1 * kept, told([portion.name], groups, kept))
        return Choice(kept, 2 * groups + kept, told(names, groups, kept, portion.name))

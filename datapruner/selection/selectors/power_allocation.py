"""Shares of the budget by a power of the groups' sizes, and in every group the best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.selection.allocation import allocate, power_weights
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector
from datapruner.selection.selectors.group_quota import Held, best_of_groups, told


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

    power: float = 0.0
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
        def share(held: Held) -> Ints:
            weights = power_weights(held.sizes, self.power)
            return allocate(weights, held.sizes, held.budget, projection="proportional", names=held.names)

        choice = best_of_groups(ranking, portion, share)
        if len(choice.texts) == 2 and portion.name:  # the column's groups are the ranking's
            return replace(choice, texts=told([portion.name], 0 * choice.codes, choice.kept))
        return choice

"""The rows of the highest values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, best_first, fill, take


@dataclass(frozen=True)
class TopK(Selector):
    """Keep the highest values.

    Parameters
    ----------
    balance : float
        Where the ranking has groups: each first gets floor(balance * its rows * budget / all rows) of its
        best (the class-balance floor of arXiv 2206.14486, *published* for classes).
    """

    balance: float = 0.0
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.balance <= 1:
            raise DataPrunerError(f"topk: balance must lie between 0 and 1, not {self.balance}")

    @property
    def by_groups(self) -> bool:
        """Where groups have a floor."""
        return self.balance > 0

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        order = best_first(values)
        where = f" of {portion.name}" if portion.name else ""
        floor = np.zeros(len(order), dtype=np.bool_)
        if self.balance > 0 and ranking.groups is not None and len(order):
            groups = np.unique(ranking.groups[portion.rows], return_inverse=True)[1]
            sizes = np.bincount(groups, portion.costs).astype(np.int64).tolist()
            # In exact fractions: 49 * (2 / 98) is below 1 in floats, and its floor would be 0.
            each = as_written(self.balance) * min(portion.budget, sum(sizes)) / sum(sizes)
            shares = np.array([math.floor(each * size) for size in sizes], dtype=np.int64)
            floor = take(order, portion.costs, shares, groups, spend_rest=False)
        spent = int(portion.costs[floor].sum())
        kept = floor.copy()
        fill(order[~floor[order]], portion.costs, portion.budget - spent, kept)
        ranked = kept & ~floor
        measure = ranking.measure
        cut = f"{measure.shown(float(values[ranked].min())):.6g}" if ranked.any() else "none"
        # Of a quantity whose low values are kept, the cut has the quantity's sign and name, not the score's.
        named = "" if measure.high else f"{measure.name} "
        codes = np.where(kept, np.where(floor, 2, 0), 1)
        if portion.unit == "tokens" and ranked.any():
            codes[~kept & (values > values[ranked].min())] = 3
        return Choice(
            kept,
            codes.astype(np.int64),
            [
                f"kept: as are all rows{where} that cleaning left"
                if kept.all()
                else f"kept: among the best{where}, {named}{measure.beyond(True)} the cut {cut}",
                f"dropped: below the best{where}, {named}{measure.beyond(False)} the cut {cut}",
                f"kept: among the best of its cluster, which keeps a floor of {self.balance:.4g} of its even share",
                f"dropped: too long for what was left of the budget{where}",
            ],
        )

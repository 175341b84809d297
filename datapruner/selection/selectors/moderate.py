"""The rows around the median (Moderate-DS, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, take


@dataclass(frozen=True)
class Moderate(Selector):
    """Keep the rows around the median of any score (Moderate-DS, ICLR 2023).

    *Published* for the distance to the class mean: the central fraction of the sorted distances. *Ours*: on
    any score, and on a tie in rank distance the row with the lower position.
    """

    name: ClassVar[str] = "moderate"

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        rank = np.empty(len(values))
        rank[np.argsort(values, kind="stable")] = np.arange(len(values))
        order = np.argsort(np.abs(rank - (len(values) - 1) / 2), kind="stable")
        kept = take(order, portion.costs, np.array([portion.budget]))
        where = f" of {portion.name}" if portion.name else ""
        low, high = (values[kept].min(), values[kept].max()) if kept.any() else (np.nan, np.nan)
        measure = ranking.measure
        low, high = (low, high) if measure.high else (measure.shown(high), measure.shown(low))
        named = "scores" if measure.high else measure.name
        return Choice(
            kept,
            kept.astype(np.int64),
            [
                f"dropped: not among the rows of central rank{where}, {named} {low:.6g} to {high:.6g}",
                f"kept: among the rows of central rank{where}, {named} {low:.6g} to {high:.6g}",
            ],
        )

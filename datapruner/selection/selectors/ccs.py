"""Coverage-centric selection: strata of a score, and inside each a draw (arXiv 2210.15809)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, best_first, take


@dataclass(frozen=True)
class CCS(Selector):
    """Coverage-centric selection for any score (arXiv 2210.15809).

    *Published*: drop the ``beta`` share of hardest rows, cut the rest of the score range into equal-width
    strata, visit them smallest first, give each min(size, what is left / strata left), uniformly at random
    inside. *Ours*: hardest means the highest value, without those that
    tie with the first row below; what integer division leaves goes to the last strata; in
    token budgets a stratum's size is its tokens. When fewer rows than the budget are left, the hardest are
    taken back in, easiest first.

    Parameters
    ----------
    beta : float
        In [0, 1).
    strata : int
    """

    beta: float = 0.1
    strata: int = 50
    name: ClassVar[str] = "ccs"
    taken: ClassVar[str] = "drawn from"
    left: ClassVar[str] = "not drawn from"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.beta < 1 or self.strata < 1:
            raise DataPrunerError(
                f"ccs: beta must lie in [0, 1) and strata be 1 or more, not {self.beta}, {self.strata}"
            )

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        m = len(values)
        order = best_first(values)
        cut = math.floor(as_written(self.beta) * m)
        if 0 < cut < m:  # rows that tie with the first one below the cut are not among the hardest
            cut = int((values > values[order[cut]]).sum())
        hardest, rest = order[:cut], order[cut:]
        stratum = np.full(m, self.strata, dtype=np.int64)
        if len(rest):
            low, high = float(values[rest].min()), float(values[rest].max())
            width = (high - low) / self.strata
            stratum[rest] = (
                0 if width == 0 else np.minimum((values[rest] - low) / width, self.strata - 1).astype(int)
            )
        sizes = np.bincount(stratum, portion.costs, self.strata + 1).astype(np.int64)
        budgets = np.zeros(self.strata + 1, dtype=np.int64)
        left = portion.budget
        filled = [j for j in np.argsort(sizes[:-1], kind="stable").tolist() if sizes[j]]
        for visited, j in enumerate(filled):
            budgets[j] = min(int(sizes[j]), left // (len(filled) - visited))
            left -= int(budgets[j])
        budgets[self.strata] = min(left, int(sizes[self.strata]))
        inside = self._order(ranking, portion, stratum, budgets, rng)
        # The hardest come last of all, the easiest of them first.
        within = np.concatenate([inside[stratum[inside] < self.strata], hardest[::-1]])
        kept = take(within, portion.costs, budgets, stratum)
        where = f" of {portion.name}" if portion.name else ""
        measure = ranking.measure
        extreme = "highest scores" if measure.high else f"lowest {measure.name}"
        texts = [f"dropped: among the {self.beta:.4g} {extreme}{where}"]
        codes = np.zeros(m, dtype=np.int64)
        for j in np.unique(stratum).tolist():
            named = f"score stratum {j + 1} of {self.strata}{where}"
            here = stratum == j
            if j == self.strata:
                texts.append(f"kept: among the {self.beta:.4g} {extreme}{where}, but the budget had room")
                codes[here & kept] = len(texts) - 1
                continue
            texts += [f"dropped: {self.left} {named}", f"kept: {self.taken} {named}"]
            codes[here] = len(texts) - 2
            codes[here & kept] = len(texts) - 1
            if portion.unit == "tokens" and (here & kept).any():
                met = within[here[within]]
                before = met[: int(np.flatnonzero(kept[met])[-1])]
                texts.append(f"dropped: too long for what was left of the budget of {named}")
                codes[before[~kept[before]]] = len(texts) - 1
        return Choice(kept, codes, texts)

    def _order(
        self, ranking: Ranking, portion: Portion, stratum: Ints, budgets: Ints, rng: np.random.Generator
    ) -> Ints:
        """Give all places of the portion; those of a stratum in the order in which it spends its budget."""
        shuffled: Ints = rng.permutation(len(stratum))
        return shuffled

"""Strata of a score, and inside each an even walk through the data: coverage without a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.ccs import CCS

WALK = "walk_place"
"""A ranking's column: every row's place on a walk on which neighbours stand together."""


@dataclass(frozen=True)
class Coverage(CCS):
    """Coverage-centric selection that steps evenly along a walk instead of drawing at random.

    *Published*, as in :class:`datapruner.selection.selectors.ccs.CCS`: the highest scores dropped, equal-width strata,
    the smallest first. *Ours*: in a stratum every (size / budget)-th row of the walk is kept (systematic sampling, from
    a seeded start), so that every part of the data is met in proportion; few strata.

    The ranking must have the column that the scorers ``entanglement`` and ``topoprune`` give: the places along the
    merge trees of its groups, one group after the other.

    Parameters
    ----------
    beta : float
        Share of the highest scores that is dropped, in [0, 1).
    strata : int
    """

    beta: float = 0.1
    strata: int = 3
    name: ClassVar[str] = "coverage"
    needs: ClassVar[frozenset[str]] = frozenset({WALK})
    taken: ClassVar[str] = "taken on the walk through"
    left: ClassVar[str] = "passed over on the walk through"

    @property
    def asks(self) -> tuple[str, str]:
        """Say what it reads, and who gives it."""
        return "the rows' places on a walk", "use the scorer entanglement or topoprune, or the selector ccs"

    def _order(
        self, ranking: Ranking, portion: Portion, stratum: Ints, budgets: Ints, rng: np.random.Generator
    ) -> Ints:
        walk = np.argsort(ranking.columns[WALK][portion.rows], kind="stable")
        start = rng.random()
        out = [walk[:0]]
        for j in np.unique(stratum).tolist():
            here = walk[stratum[walk] == j]
            met = evenly(portion.costs[here], int(budgets[j]), start)
            out += [here[met], here[~met]]
        return np.concatenate(out)


def evenly(costs: Ints, budget: int, start: float) -> Flags:
    """Mark rows at even steps: systematic sampling.

    Parameters
    ----------
    costs : ndarray, int64, shape (m,)
        In the order of the walk.
    budget : int
        As many rows are marked as it buys at the average cost; with unit costs exactly ``min(budget, m)``.
    start : float
        In [0, 1): where in the first step the walk begins.

    Returns
    -------
    ndarray, bool, shape (m,)
    """
    m, total = len(costs), int(costs.sum())
    count = m if budget >= total else budget * m // total
    reached = np.arange(m + 1) * count + int(start * m)
    return np.asarray(np.diff(reached // max(1, m)) > 0)

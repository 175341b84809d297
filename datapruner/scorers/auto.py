"""The default: random rows of every group, whose shares lie between equal ones and those in proportion to size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers._grouping import CLUSTER, groups_of, signals_of
from datapruner.scorers.base import Scorer
from datapruner.selection.allocation import power_weights
from datapruner.signals import COLUMN, Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.power_allocation import PowerAllocation


@dataclass(frozen=True)
class Auto(Scorer):
    """Share the budget over groups of rows by a power of their size, and draw at random inside each.

    *Published*: power allocation of stratified samples (Bankier 1988, The American Statistician 42, 174-177): a group's
    share is in proportion to size^power, between equal shares (0) and a plain random draw's (1); multilingual models
    share their training tokens over languages so (XLM, arXiv 1901.07291: 0.5). *Ours*: groups are clusters of the
    embeddings where no column names them; a group that has less than its share gives the rest to the others, by the
    same rule; and size is counted in what the budget is given in, rows or supervised tokens.

    It is also what chooses where no scorer is named: after the cleaning of the default recipe, see
    :mod:`datapruner.recipe.auto`.

    Equal shares are the default because, of 0, 0.25 and 0.5 over clusters of whole rows, they came nearest to an oracle
    on a messy set; over clusters of prompts they cost nothing by tokens on a clean set and on one of a single task
    (``benchmarks/worth.py``).

    Parameters
    ----------
    power : float
        Between 0, equal shares, and 1, shares in proportion to size.
    within : str
        ``cluster`` (spherical k-means of the embeddings), or the column whose values are the groups
        (``column:cluster`` for one of that name).
    n_clusters : int, optional
        k, with ``within="cluster"``; round(sqrt(n / 2)) between 8 and 1000 by default.
    """

    power: float = 0.0
    within: str = CLUSTER
    n_clusters: int | None = None
    name: ClassVar[str] = "auto"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"groups", "cluster"})
    paper: ClassVar[str] = "Bankier 1988"
    provenance: ClassVar[str] = "allocation published; groups and remainders ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.power <= 1:
            raise DataPrunerError(f"auto: power must lie between 0 and 1, not {self.power}")
        if not self.within.removeprefix(COLUMN):
            raise DataPrunerError("auto: within is 'cluster' or a column's name, not an empty one")
        if self.n_clusters is not None and self.within != CLUSTER:
            raise DataPrunerError("auto: n_clusters is for within=cluster")

    @property
    def requires(self) -> frozenset[str]:
        """What the groups are made of."""
        return signals_of(self.within)

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random."""
        return True

    def selector(self) -> PowerAllocation:
        """Shares by the power of what each group holds of the budget's currency."""
        from datapruner.selection.selectors.power_allocation import PowerAllocation

        return PowerAllocation(self.power)

    def _score(self, signals: Signals) -> Ranking:
        groups = groups_of(signals, self.within, self.n_clusters)
        return Ranking(
            np.random.default_rng([signals.seed, 1]).random(signals.num_rows),
            groups=groups,
            group_weights=power_weights(np.bincount(groups), self.power),
            columns={"cluster": groups} if self.within == CLUSTER else {},
        )

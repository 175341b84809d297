"""Random rows of every cluster: a baseline for methods that spread a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers._grouping import CLUSTER, groups_of
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.group_quota import GroupQuota


@dataclass(frozen=True)
class Stratified(Scorer):
    """Random rows of every cluster of the embeddings: each has an equal share of the budget, as far as its rows go.

    What a method that shares a budget over clusters has to beat: if it does not, spreading the rows is all it does.
    For the groups of a column, and shares by their sizes, take ``random`` with ``per_group``.

    Parameters
    ----------
    n_clusters : int, optional
        k of spherical k-means; round(sqrt(n / 2)) between 8 and 1000 by default.
    """

    n_clusters: int | None = None
    name: ClassVar[str] = "stratified"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"groups", "cluster"})
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random."""
        return True

    def selector(self) -> GroupQuota:
        """Equal shares; what a small cluster cannot spend goes to the others."""
        from datapruner.selection.selectors.group_quota import GroupQuota

        return GroupQuota(projection="proportional")

    def _score(self, signals: Signals) -> Ranking:
        clusters = groups_of(signals, CLUSTER, self.n_clusters)
        return Ranking(
            np.random.default_rng([signals.seed, 1]).random(signals.num_rows),
            groups=clusters,
            group_weights=np.ones(int(clusters.max()) + 1),
            columns={"cluster": clusters},
        )

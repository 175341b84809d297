"""Honest baselines: what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.scorers.base import Ranking, Scorer
from datapruner.scorers.grouping import CLUSTER, groups_of
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors import GroupQuota


@dataclass(frozen=True)
class Random(Scorer):
    """A seeded shuffle: a value depends on the seed and the row's place among those that cleaning left."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.random.default_rng(signals.seed).random(signals.num_rows))


@dataclass(frozen=True)
class Unranked(Scorer):
    """Every row alike: what cleaning left is kept in the order of the source, as ``datapruner clean`` does."""

    name: ClassVar[str] = "unranked"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.zeros(signals.num_rows))


@dataclass(frozen=True)
class Length(Scorer):
    """Supervised tokens of a row: long rows first, or short ones.

    Parameters
    ----------
    shortest : bool
        Keep short rows instead.
    """

    shortest: bool = False
    name: ClassVar[str] = "length"
    needs: ClassVar[frozenset[str]] = frozenset({"num_supervised_tokens"})
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    def _score(self, signals: Signals) -> Ranking:
        tokens = signals["num_supervised_tokens"]
        values = tokens.astype(np.float64)
        return Ranking(-values if self.shortest else values, columns={"num_supervised_tokens": tokens})


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
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    def selector(self) -> GroupQuota:
        """Equal shares; what a small cluster cannot spend goes to the others."""
        from datapruner.selection.selectors import GroupQuota

        return GroupQuota(projection="proportional")

    def _score(self, signals: Signals) -> Ranking:
        clusters = groups_of(signals, CLUSTER, self.n_clusters)
        return Ranking(
            np.random.default_rng([signals.seed, 1]).random(signals.num_rows),
            groups=clusters,
            group_weights=np.ones(int(clusters.max()) + 1),
            columns={"cluster": clusters},
        )


BASELINES = (Random.name, Length.name)
"""What stands beside the scorers that were asked for, in every comparison."""

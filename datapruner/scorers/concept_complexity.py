"""Concept-cluster complexity: density-based pruning (arXiv 2401.04578)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.geometry.clustering import inter_distance, intra_distance
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.group_quota import GroupQuota


@dataclass(frozen=True)
class ConceptComplexity(Scorer):
    """Give complex concepts more of the budget, and keep what is least typical of each.

    *Published* (arXiv 2401.04578, section 3): deduplicate first; spherical k-means; for cluster j, d_intra =
    mean (1 - cos) of the members to their centroid, d_inter = mean (1 - cos) of the centroid to its 20
    nearest ones, C_j = d_inter * d_intra, P = softmax(C / temperature); counts by the bounded least squares
    of :func:`datapruner.selection.allocation.allocate` (``l2``); inside a cluster the rows farthest from the
    centroid. *Derived*: the allocation without a QP solver. *Ours*: the default number of clusters,
    round(sqrt(n / 2)) between 8 and 1000, and d_inter over min(20, k - 1) centroids.

    The clustering depends on the order of the rows, so permuted rows may get other values.

    Parameters
    ----------
    n_clusters : int, optional
        k; a value above the number of distinct rows is an error.
    temperature : float
        tau. At the published code's 0.5 the largest and the smallest share differ by a factor of 1.75 on real
        data, at 0.1 by 16.
    keep : {"hard", "easy", "random"}
        Rows far from the centroid (published choice), near it, or a seeded shuffle.
    iterations : int
        Of k-means.
    """

    n_clusters: int | None = None
    temperature: float = 0.5
    keep: Literal["hard", "easy", "random"] = "hard"
    iterations: int = 20
    name: ClassVar[str] = "concept_complexity"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {"groups", "cluster", "centroid_distance", "d_intra", "d_inter", "complexity"}
    )
    paper: ClassVar[str] = "arXiv 2401.04578"
    provenance: ClassVar[str] = "published; default k and small-k neighbours ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not self.temperature > 0:
            raise DataPrunerError(f"concept_complexity: temperature must be above 0, not {self.temperature}")

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset() if self.keep == "random" else frozenset({"duplicates"})

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random."""
        return self.keep == "random"

    def selector(self) -> GroupQuota:
        """Bounded least-squares shares, with the published code's lower bounds."""
        from datapruner.selection.selectors.group_quota import GroupQuota

        return GroupQuota(projection="l2", floor_share=0.5)

    def _score(self, signals: Signals) -> Ranking:
        clusters = signals.clusters(self.n_clusters, iterations=self.iterations)
        intra, inter = intra_distance(clusters), inter_distance(clusters.centroids)
        complexity = inter * intra
        distance = clusters.distance.astype(np.float64)
        if self.keep == "random":
            values = np.random.default_rng([signals.seed, 1]).random(signals.num_rows)
        else:
            values = distance if self.keep == "hard" else -distance
        return Ranking(
            values,
            groups=clusters.assignment,
            group_weights=softmax(complexity / self.temperature),
            columns={"cluster": clusters.assignment, "centroid_distance": distance},
            state={"d_intra": intra, "d_inter": inter, "complexity": complexity},
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Exponentials that sum to 1, without overflow; float64, shape (k,)."""
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())
